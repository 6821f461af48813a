"""`python -m benchmarks routing`: how well a message's complexity chooses between a cheap and a strong model.

`study` measures the scorer beside baselines on MMLU and GSM8K, `train` makes the packaged one, `curves` draws strong
calls against performance, `speed` times a decision. The data is not kept here: see `data`.
"""

import argparse
import json
from pathlib import Path

from rich.console import Console

from benchmarks.routing.data import DATA, SOURCES, Examples, load

ROOT = Path(__file__).parents[2]
SEED = 1


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("do", choices=list(COMMANDS), help="what to do")
    parser.add_argument("--data", type=Path, default=DATA, help=f"folder that holds routellm/ ({DATA})")
    parser.add_argument("--seeds", type=_numbers, default=[SEED], help="of folds and of training; train takes one (1)")
    parser.add_argument("--no-boosting", action="store_true", help="study without the slow baseline")
    parser.add_argument(
        "--output", type=Path, help="of train: the scorer; of curves: a folder; of study: figures as JSON"
    )
    parser.set_defaults(run=lambda chosen, console: COMMANDS[chosen.do](chosen, console))


def study(chosen: argparse.Namespace, console: Console) -> None:
    """Out-of-fold quality of the scorer, its pieces and the baselines; the mean over the seeds."""
    from benchmarks.routing import out_of_fold
    from benchmarks.routing.report import averaged, table

    sources, found = _sources(chosen, console), []
    for seed in chosen.seeds:
        with console.status(f"seed {seed}: training on each fold"):
            for setting, scores in out_of_fold.scores(sources, seed, not chosen.no_boosting):
                found += out_of_fold.rows(setting, scores, sources[out_of_fold.SETTINGS[setting][0]])
    console.print(table(averaged(found), chosen.seeds))
    if chosen.output is not None:
        lines = [{"setting": r.setting, "method": r.method, "apgr": r.apgr, "share": r.share} for r in averaged(found)]
        chosen.output.write_text(json.dumps({"seeds": chosen.seeds, "rows": lines}, indent=1) + "\n")


def train(chosen: argparse.Namespace, console: Console) -> None:
    """Train on everything and write the scorer, with what it was made from beside it."""
    from benchmarks.routing.packaging import package

    path = package(_sources(chosen, console), chosen.seeds[0], chosen.output, console)
    console.print(f"{path}: {path.stat().st_size / 1024:.0f} KiB", markup=False)


def curves(chosen: argparse.Namespace, console: Console) -> None:
    """Draw out-of-fold curves for MMLU and GSM8K."""
    from benchmarks.routing import out_of_fold
    from benchmarks.routing.picture import svg

    sources, folder = _sources(chosen, console), chosen.output or ROOT / "docs" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    with console.status("training on each fold"):
        for setting, scores in out_of_fold.scores(sources, chosen.seeds[0], False):
            path = folder / f"routing-{setting.lower().replace(' ', '-')}.svg"
            shown = {name: scores[name] for name in (out_of_fold.OURS, out_of_fold.LENGTH)}
            path.write_text(svg(setting, shown, sources[out_of_fold.SETTINGS[setting][0]]))
            console.print(str(path), markup=False)


def speed(chosen: argparse.Namespace, console: Console) -> None:
    """Time one decision, the embedding given, in one thread."""
    from benchmarks.routing.timing import measure

    measure(_sources(chosen, console), console)


COMMANDS = {"study": study, "train": train, "curves": curves, "speed": speed}


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _sources(chosen: argparse.Namespace, console: Console) -> dict[str, Examples]:
    try:
        with console.status("reading the data; embedding it takes minutes the first time"):
            return {source: load(chosen.data, source) for source in SOURCES}
    except OSError as error:
        missing = error.filename or chosen.data
        console.print(
            f"{missing} is missing: name its folder with --data or BRAIN_EVAL_DATA", markup=False, soft_wrap=True
        )
    except (ValueError, LookupError) as error:
        console.print(f"the data cannot be read: {error}", markup=False, soft_wrap=True)
    raise SystemExit(2)
