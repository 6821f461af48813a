"""The simulation of autoscaling: known arrivals on mock replicas, with waits that can be computed by hand."""

import argparse
import csv
import json
from xml.etree import ElementTree

import pytest
from ray.serve.config import AutoscalingConfig
from rich.console import Console

from benchmarks import autoscaling
from benchmarks.autoscaling.models import MODELS, MockModel
from benchmarks.autoscaling.simulation import Simulation
from benchmarks.autoscaling.trace import Arrival, load, multiplied
from benchmarks.autoscaling.variants import ALTERNATIVES, configured, variants

SERIAL = MockModel("serial", "", 1, start_s=10, usd_hour=1, fixed_s=1)
SHARED = MockModel("shared", "", 1, start_s=10, usd_hour=1, answer_s=1, slope=1)


def simulated(model, arrivals, max_ongoing=100, **config):
    fixed = {"min_replicas": 1, "max_replicas": 1, "target_ongoing_requests": 1, **config}
    return Simulation(model, AutoscalingConfig.model_validate(fixed), max_ongoing, arrivals, seed=1).run()


def ends(run):
    return [job.done_at for job in run.jobs]


def test_one_after_the_other():
    run = simulated(SERIAL, [Arrival(0, 1, 0), Arrival(0, 1, 0), Arrival(5, 1, 0)])
    assert ends(run) == [1, 2, 6]


def test_what_waits_is_taken_together():
    model = MockModel("group", "", 1, start_s=10, usd_hour=1, fixed_s=1, per_token_s=0.1, together=2)
    assert ends(simulated(model, [Arrival(0, 10, 0)] + [Arrival(0.5, 10, 0)] * 3)) == pytest.approx([2, 5, 5, 7])


def test_those_that_run_together_slow_each_other():
    """Two share: half the speed each. The second has 1 of its 3 tokens left when the first ends at 4."""
    run = simulated(SHARED, [Arrival(0, 1, 2), Arrival(0, 1, 3)])
    assert ends(run) == pytest.approx([4, 5])


def test_a_full_cache_makes_the_next_one_wait():
    model = MockModel("cache", "", 1, start_s=10, usd_hour=1, answer_s=1, cache=10)
    run = simulated(model, [Arrival(0, 4, 2), Arrival(0, 4, 2)])
    assert ends(run) == pytest.approx([2, 4])


def test_from_none_the_first_request_starts_a_replica_and_pays_for_it_until_it_has_gone():
    model = MockModel("cold", "", 1, start_s=10, usd_hour=1, fixed_s=1, silence_s=1000)
    quick = {"min_replicas": 0, "upscale_delay_s": 0, "downscale_delay_s": 100, "downscale_to_zero_delay_s": 200}
    run = simulated(model, [Arrival(3.5, 1, 0), Arrival(700, 1, 0)], **quick)
    assert ends(run) == [4 + 10 + 1, 700 + 10 + 1], "decided at the next full second, started in 10, answered in 1"
    assert (run.cold_starts, run.starts, run.peak) == (2, 2, 1)
    assert 2 * 210 < run.replica_seconds < 2 * 260


def test_a_deployment_grows_under_load_and_shrinks_after_it():
    arrivals = [Arrival(number / 4, 1, 0) for number in range(2400)]
    changes = {"max_replicas": 6, "target_ongoing_requests": 2, "upscale_delay_s": 10, "downscale_delay_s": 60}
    alone = simulated(SERIAL, arrivals, max_ongoing=10)
    scaled = simulated(SERIAL, [*arrivals, Arrival(1600, 1, 0)], max_ongoing=10, **changes)
    assert max(ends(alone)) > 2000, "four a second are too many for one replica"
    late = [job.done_at - job.arrived for job in scaled.jobs if job.arrived > 300]
    assert max(late) < 10
    assert scaled.peak >= 5
    assert scaled.replica_seconds < 5.5 * 600 + 1200


def test_the_same_seed_gives_the_same_run():
    arrivals = multiplied([Arrival(number / 10, 50, 5) for number in range(300)], 3, seed=7)
    assert arrivals == multiplied([Arrival(number / 10, 50, 5) for number in range(300)], 3, seed=7)
    assert len(arrivals) == 900
    runs = [simulated(MODELS["hosted"], arrivals, max_replicas=4) for _ in range(2)]
    assert ends(runs[0]) == ends(runs[1])
    assert runs[0].replica_seconds == runs[1].replica_seconds


@pytest.mark.parametrize("kind", list(MODELS))
def test_every_kind_has_its_configured_scaling_and_two_alternatives(kind):
    found = list(variants(kind))
    assert [one.label for one in found] == ["as configured", *ALTERNATIVES[kind]]
    assert len({one.config.model_dump_json() for one in found}) == 3
    assert found[0].config == AutoscalingConfig.model_validate(configured(kind)[0])


@pytest.fixture
def trace(tmp_path):
    (tmp_path / "azure").mkdir()
    for name in ("conv", "code"):
        with (tmp_path / "azure" / f"AzureLLMInferenceTrace_{name}.csv").open("w") as file:
            rows = csv.writer(file)
            rows.writerow(["TIMESTAMP", "ContextTokens", "GeneratedTokens"])
            for second in range(30):
                rows.writerow([f"2023-11-16 18:15:{second:02}.6805900", 1000, 20])
    return tmp_path


def run_command(*arguments):
    parser = argparse.ArgumentParser()
    autoscaling.arguments(parser)
    chosen = parser.parse_args([str(argument) for argument in arguments])
    console = Console(record=True, width=180)
    chosen.run(chosen, console)
    return console.export_text()


def test_the_command_prints_tables_and_writes_figures_and_a_picture(trace, tmp_path):
    files = [tmp_path / "first.json", tmp_path / "second.json"]
    for file in files:
        options = ["--data", trace, "--kinds", "vLLM", "--traces", "conversations", "--picture", tmp_path / "a.svg"]
        said = run_command(*options, "--output", file)
    assert "as configured" in said
    assert "by requests alone" in said
    assert files[0].read_bytes() == files[1].read_bytes()
    figures = json.loads(files[0].read_text())["results"]
    assert [one["trace"] for one in figures] == ["conversations"] * 3
    cold, warm = figures[0], figures[1]
    assert cold["usd"] < warm["usd"]
    assert cold["wait_p50_s"] > 100 > 1 > warm["wait_p50_s"]
    picture = ElementTree.fromstring((tmp_path / "a.svg").read_text())  # noqa: S314
    assert len(picture.findall(".//{http://www.w3.org/2000/svg}circle")) == 3 + 1


def test_a_missing_trace_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run_command("--data", tmp_path)
    assert ended.value.code == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(str(tmp_path / "azure" / "AzureLLMInferenceTrace_conv.csv") + " is missing")


def test_a_file_of_another_shape_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no Azure inference trace"):
        load(tmp_path / "x.csv")
