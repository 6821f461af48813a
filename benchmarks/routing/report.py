"""The study as a table."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.routing.out_of_fold import Row


@dataclass(frozen=True, slots=True)
class Averaged:
    """A method in a setting: means over the seeds, and how far the seeds' APGR lie apart."""

    setting: str
    method: str
    apgr: float
    lowest: float
    highest: float
    share: float
    error: float | None


def averaged(rows: Sequence[Row]) -> list[Averaged]:
    """In the order in which they came."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.setting, row.method), []).append(row)
    return [_averaged(setting, method, group) for (setting, method), group in groups.items()]


def _averaged(setting: str, method: str, group: Sequence[Row]) -> Averaged:
    apgr = [row.quality.apgr for row in group]
    errors = [row.error for row in group if row.error is not None]
    share = statistics.fmean(row.quality.share for row in group)
    error = statistics.fmean(errors) if errors else None
    return Averaged(setting, method, statistics.fmean(apgr), min(apgr), max(apgr), share, error)


def table(rows: Sequence[Averaged], seeds: Sequence[int]) -> Table:
    """One line a setting and method."""
    title = f"Mixtral-8x7B or GPT-4; 5 folds, out-of-fold scores pooled; seeds {', '.join(map(str, seeds))}"
    headings = ("data", "score", "APGR", "over the seeds", "strong calls for 80 % of the gap", "calibration error")
    found = Table(*headings, title=title, title_justify="left")
    for at, row in enumerate(rows):
        found.add_row(
            row.setting if at == 0 or rows[at - 1].setting != row.setting else "",
            row.method,
            f"{row.apgr:.3f}",
            f"{row.lowest:.3f} to {row.highest:.3f}",
            f"{100 * row.share:.1f} %",
            "" if row.error is None else f"{row.error:.3f}",
        )
    return found
