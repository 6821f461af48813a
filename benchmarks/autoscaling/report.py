"""The tables of the simulation, for the terminal and for a page."""

from collections.abc import Sequence

from rich.table import Table

from benchmarks.autoscaling.models import MODELS
from benchmarks.autoscaling.results import Result

HEADINGS = (
    "scaling", "replica-hours", "USD", "wait p50 s", "p95 s", "p99 s", "waited > 1 s", "slowed p95", "peak",
    "starts", "from zero",
)  # fmt: skip


def tables(found: Sequence[Result]) -> list[Table]:
    """One a kind and trace."""
    made = []
    for heading, group in _grouped(found):
        table = Table(title=heading, title_justify="left")
        for at, name in enumerate(HEADINGS):
            table.add_column(name, justify="right" if at else "left", no_wrap=True)
        for one in group:
            table.add_row(*_cells(one))
        made.append(table)
    return made


def markdown(found: Sequence[Result]) -> str:
    """One table, with a heading line a kind and trace."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---|" + "---:|" * (len(HEADINGS) - 1)]
    for heading, group in _grouped(found):
        lines.append(f"| **{heading}** |" + " |" * (len(HEADINGS) - 1))
        lines += ["| " + " | ".join(_cells(one)) + " |" for one in group]
    return "\n".join(lines)


def _grouped(found: Sequence[Result]) -> list[tuple[str, list[Result]]]:
    groups: dict[tuple[str, str], list[Result]] = {}
    for one in found:
        groups.setdefault((one.kind, one.trace), []).append(one)
    return [(_heading(*names, group[0]), group) for names, group in groups.items()]


def _heading(kind: str, trace: str, one: Result) -> str:
    model = MODELS[kind]
    return (
        f"{kind}, {trace}: {one.requests:,} requests in {one.hours:.1f} h; a replica starts in {model.start_s:.0f} s "
        f"and costs {model.usd_hour:.2f} USD an hour"
    )


def _cells(one: Result) -> tuple[str, ...]:
    return (
        one.variant,
        f"{one.replica_hours:.2f}",
        f"{one.usd:.3f}",
        *(f"{wait:.3f}" if wait < 10 else f"{wait:.1f}" for wait in (one.wait_p50_s, one.wait_p95_s, one.wait_p99_s)),
        f"{one.waited_long:.2%}",
        f"{one.slowed_p95:.2f}",
        str(one.peak),
        str(one.starts),
        str(one.cold_starts),
    )
