"""The study as a table."""

from collections.abc import Sequence

from rich.table import Table

from benchmarks.understanding.measure import Row

HEADINGS = (
    "method",
    "accuracy",
    "macro-F1",
    "calibration error",
    "AUROC",
    "recall at 4 %",
    "false alarms",
    "own threshold",
    "training s",
    "predict ms",
)


def table(title: str, rows: Sequence[tuple[str, Row]]) -> Table:
    """One line a method."""
    found = Table(*HEADINGS, title=title, title_justify="left")
    for method, row in rows:
        found.add_row(method, *cells(row))
    return found


def markdown(title: str, rows: Sequence[tuple[str, Row]]) -> str:
    """The same for docs/understanding.md."""
    lines = [f"**{title}**", "", f"| {' | '.join(HEADINGS)} |", f"|---|{'---:|' * (len(HEADINGS) - 1)}"]
    lines += [f"| {method} | {' | '.join(cells(row))} |" for method, row in rows]
    return "\n".join(lines) + "\n"


def cells(row: Row) -> list[str]:
    """As text, without the method."""
    own = "" if row.own_recall is None or row.own_alarms is None else f"{row.own_recall:.2f} / {row.own_alarms:.3f}"
    return [
        f"{100 * row.accuracy:.2f}",
        f"{100 * row.macro_f1:.2f}",
        f"{row.calibration_error:.3f}",
        "" if row.auroc is None else f"{row.auroc:.4f}",
        "" if row.recall is None else f"{row.recall:.3f}",
        "" if row.alarms is None else f"{row.alarms:.3f}",
        own,
        f"{row.training:.1f}",
        f"{row.predicting:.2f}",
    ]
