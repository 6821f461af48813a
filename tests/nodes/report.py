"""Trials in figures, for people and for Markdown."""

from collections import Counter
from pathlib import Path

from tests.nodes.trial import Trial

COLUMNS = "| {} | operations | failed | told to come again | streams resumed | never answered"
COLUMNS += " | nobody answered for, s | longest wait, s | all in time again after, s | over after, s | verdict |"


def tell(trial: Trial, folder: Path) -> None:
    """What went wrong, and where its history is."""
    path = folder / f"history-{trial.scenario.name}.jsonl"
    path.write_bytes(b"\n".join(trial.result.history.lines()) + b"\n")
    for outcome, number in trial.calls.most_common():
        print(f"         {number} × {outcome}")
    for name, number in Counter(one.name for one in trial.violations).most_common():
        first = next(one for one in trial.violations if one.name == name)
        print(f"         {number} × {first}")
    print(table([trial]), flush=True)


def table(trials: list[Trial]) -> str:
    lines = [COLUMNS.format("scenario"), "|---" * COLUMNS.count(" | ") + "|---|"]
    for trial in trials:
        seen = trial.figures
        cells = [trial.scenario.name, seen.operations, seen.failed, seen.later, seen.broken, seen.never]
        cells += [f"{value:.1f}" for value in (seen.pause, seen.wait, seen.again, trial.over)]
        cells += [f"{len(trial.violations)} violations" if trial.violations else "clean"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)
