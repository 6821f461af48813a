"""`python -m benchmarks intents`: which head over sentence embeddings names intents best, and what it costs.

The data is not kept here: see `data`. Nothing is tuned on test parts, and each is looked at once a method and seed.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from benchmarks import facts
from benchmarks.understanding.data import DATA, SOURCES, Setting, Vectors, sampled

DO = (
    "study: heads on data sets; speed: training, and the head beside its embedding; serving: both deployments; "
    "precision: what search loses by int8 (study)"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("do", choices=("study", "speed", "serving", "precision"), nargs="?", default="study", help=DO)
    parser.add_argument("--data", type=Path, default=DATA, help=f"folder that holds banking77/ and others ({DATA})")
    parser.add_argument("--precision", choices=("float32", "int8"), default="float32", help="of the embedder (float32)")
    parser.add_argument("--seeds", type=_numbers, default=[1, 2, 3, 4, 5], help="of samples (1,2,3,4,5)")
    parser.add_argument("--only", default="", help="settings whose name contains this")
    parser.add_argument(
        "--methods", type=lambda text: text.split(","), default=[""], help="methods whose name contains one of these"
    )
    parser.add_argument("--markdown", action="store_true", help="tables for the documentation")
    parser.add_argument("--output", type=Path, help="figures as JSON")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace, console: Console) -> None:
    """Do what was chosen."""
    found = _settings(chosen, console)
    vectors = Vectors(chosen.precision)
    if chosen.do == "speed":
        from benchmarks.understanding.speed import speed

        speed(found[0], vectors, console)
    elif chosen.do == "serving":
        from benchmarks.understanding.serving import serving

        serving([example.text for example in found[0].test], sampled(found[0].train, 10, chosen.seeds[0]), console)
    elif chosen.do == "precision":
        from benchmarks.understanding.precision import precision

        precision(found[0], console)
    else:
        study(found, vectors, chosen, console)
    machine = facts.machine()
    console.print(f"{machine['cores']} cores ({machine['processor']}), Python {machine['python']}", markup=False)


def study(found: Sequence[Setting], vectors: Vectors, chosen: argparse.Namespace, console: Console) -> None:
    """Each method on each setting; the mean over the seeds where examples are sampled."""
    from benchmarks.understanding.measure import Row, mean, measure
    from benchmarks.understanding.methods import METHODS, SLOW
    from benchmarks.understanding.report import markdown, table

    kept: list[dict[str, object]] = []
    for setting in found:
        seeds = chosen.seeds if setting.shots is not None else chosen.seeds[:1]
        with console.status(f"{setting.name}: embedding, which takes minutes the first time"):
            for part in (setting.train, setting.test, setting.validation, setting.foreign):
                if part:
                    vectors.prepare([example.text for example in part])
        rows: list[tuple[str, Row]] = []
        for name, method in METHODS.items():
            if not any(part in name for part in chosen.methods) or (setting.shots is None and name in SLOW):
                continue
            with console.status(f"{setting.name}: {name}"):
                rows.append((name, mean([measure(setting, method, vectors, seed) for seed in seeds])))
            told = {"setting": setting.name, "method": name, "seeds": seeds, "precision": chosen.precision}
            kept.append(told | asdict(rows[-1][1]))
        title = setting.name + (f"; seeds {', '.join(map(str, seeds))}" if setting.shots is not None else "")
        if chosen.markdown:
            print(markdown(title, rows), flush=True)
        else:
            console.print(table(title, rows))
    if chosen.output is not None:
        chosen.output.write_text(json.dumps(kept, indent=1) + "\n")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _settings(chosen: argparse.Namespace, console: Console) -> list[Setting]:
    found: list[Setting] = []
    for source in SOURCES:
        try:
            found += source(chosen.data)
        except OSError as error:
            missing = error.filename or chosen.data
            console.print(f"{missing} is missing: --data or BRAIN_EVAL_DATA names its folder", markup=False)
    found = [setting for setting in found if chosen.only.lower() in setting.name.lower()]
    if not found:
        raise SystemExit(2)
    return found
