"""`python -m benchmarks autoscaling`: cost against waiting of each kind's autoscaling, simulated on a real trace.

The Azure inference trace drives mock models (`models`) through Ray Serve's own decision code (`autoscaler`), on
simulated time. Nothing is started, and the same seed gives the same figures.
"""

import argparse
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console

from benchmarks.autoscaling.models import MODELS
from benchmarks.autoscaling.trace import DATA, TRACES, Arrival, load, multiplied


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--data", type=Path, default=DATA, help=f"folder that holds the traces ({DATA})")
    parser.add_argument("--kinds", type=_names_of(MODELS), default=list(MODELS), help=f"of: {', '.join(MODELS)} (all)")
    parser.add_argument("--traces", type=_names_of(TRACES), default=list(TRACES), help=f"of: {', '.join(TRACES)} (all)")
    parser.add_argument("--seed", type=int, default=1, help="of routing and of the copies of an arrival (1)")
    parser.add_argument("--output", type=Path, help="figures as JSON")
    parser.add_argument("--picture", type=Path, help="cost against waiting as SVG (docs/pictures/autoscaling.svg)")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/operations.md at the end")
    parser.set_defaults(run=simulate)


def simulate(chosen: argparse.Namespace, console: Console) -> None:
    """Every kind, trace and variant; the tables, and the files that were asked for."""
    from benchmarks.autoscaling import picture, report, results  # these load Ray
    from benchmarks.autoscaling.simulation import Simulation
    from benchmarks.autoscaling.variants import variants

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    traces = {name: _loaded(chosen.data / TRACES[name], console) for name in chosen.traces}
    found: list[results.Result] = []
    for kind in chosen.kinds:
        for trace, arrivals in traces.items():
            several = multiplied(arrivals, MODELS[kind].times, chosen.seed)
            first = len(found)
            for variant in variants(kind):
                with console.status(f"{kind}, {trace}, {variant.label}: {len(several):,} requests"):
                    run = Simulation(variant.model, variant.config, variant.max_ongoing, several, chosen.seed).run()
                    found.append(results.result(variant, trace, run))
            console.print(report.tables(found[first:])[0])
    if chosen.output is not None:
        results.write(chosen.output, chosen.seed, {kind: MODELS[kind].usd_hour for kind in chosen.kinds}, found)
    if chosen.picture is not None:
        chosen.picture.parent.mkdir(parents=True, exist_ok=True)
        chosen.picture.write_text(picture.svg(found))
    if chosen.markdown:
        print(report.markdown(found))


def _names_of(known: Mapping[str, object]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"no such name: {', '.join(sorted(unknown))}")
        return chosen

    return names


def _loaded(path: Path, console: Console) -> list[Arrival]:
    try:
        return load(path)
    except OSError:
        console.print(
            f"{path} is missing: name its folder with --data or BRAIN_EVAL_DATA", markup=False, soft_wrap=True
        )
    except (ValueError, LookupError) as error:
        console.print(f"{path} cannot be read: {error}", markup=False, soft_wrap=True)
    raise SystemExit(2)
