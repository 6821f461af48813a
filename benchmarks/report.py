"""The table, for the terminal and for a README."""

import math
from collections.abc import Sequence

from rich.table import Table

from benchmarks.measurements import Measurement
from benchmarks.rows import LABELS

HEADINGS = (
    "system", "requests/s", "p50 ms", "p99 ms", "first token p50 ms", "p99 ms", "tokens/s", "of offered",
    "events a reply", "PSS MB", "peak RSS MB", "wrong", "× LiteLLM", "× pass-through",
)  # fmt: skip


def by_load(cells: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    """The cells of each workload, in the order of the rows."""
    order = list(LABELS)
    loads = dict.fromkeys(cell.load for cell in cells)
    return {
        load: sorted((cell for cell in cells if cell.load == load), key=lambda cell: order.index(cell.system))
        for load in loads
    }


def tables(cells: Sequence[Measurement]) -> list[Table]:
    """One rich table a workload; columns that have no value for it are left out."""
    made = []
    for load, group in by_load(cells).items():
        rows = [_values(cell, group) for cell in group]
        shown = [at for at in range(len(HEADINGS)) if any(row[at] for row in rows)]
        table = Table(title=load, title_justify="left")
        for at in shown:
            table.add_column(HEADINGS[at], justify="left" if at == 0 else "right", no_wrap=at > 0)
        for row in rows:
            table.add_row(*(row[at] for at in shown))
        made.append(table)
    return made


def markdown(cells: Sequence[Measurement], facts: str) -> str:
    """One table with a heading line a workload."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---|" + "---:|" * (len(HEADINGS) - 1)]
    for load, group in by_load(cells).items():
        lines.append(f"| **{load}** |" + " |" * (len(HEADINGS) - 1))
        lines += ["| " + " | ".join(_values(cell, group)) + " |" for cell in group]
    return "\n".join([*lines, "", facts])


def errors(cells: Sequence[Measurement]) -> list[str]:
    """One line for each cell with wrong replies, with an example."""
    return [f"{LABELS[cell.system]}, {cell.load}: {cell.wrong} wrong: {cell.an_error}" for cell in cells if cell.wrong]


def _values(cell: Measurement, group: Sequence[Measurement]) -> tuple[str, ...]:
    rate = {other.system: other.requests_per_s for other in group}
    return (
        LABELS[cell.system],
        _number(cell.requests_per_s),
        _number(cell.p50_ms),
        _number(cell.p99_ms),
        _number(cell.first_p50_ms),
        _number(cell.first_p99_ms),
        _number(cell.tokens_per_s),
        f"{cell.offered_share:.0%}" if cell.offered_share is not None else "",
        f"{cell.events_per_reply:.0f}" if cell.events_per_reply is not None else "",
        f"{cell.pss_bytes / 1e6:,.0f}" if cell.pss_bytes else "",
        f"{cell.rss_bytes / 1e6:,.0f}" if cell.rss_bytes else "",
        str(cell.wrong),
        _ratio(cell, rate.get("litellm")),
        _ratio(cell, rate.get("passthrough")),
    )


def _number(value: float | None) -> str:
    """Three significant digits, or all digits before the point."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(cell: Measurement, against: float | None) -> str:
    return f"{cell.requests_per_s / against:.2f}" if against else ""
