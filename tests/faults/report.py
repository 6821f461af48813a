"""Puts a campaign's figures into `docs/verification.md`: a row among the campaigns, and the last one's faults."""

import platform
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import psutil

from tests.faults import picture, summary
from tests.faults.campaign import Result
from tests.faults.violations import Violation

ROWS, LAST = "<!-- the next campaign -->", ("<!-- the last campaign -->", "<!-- its end -->")
PICTURE = Path("pictures/recovery.svg")


def write(page: Path, result: Result, violations: list[Violation]) -> None:
    """The page holds the marks between which figures stand. Raises ValueError where it does not."""
    text = page.read_text()
    before, mark, rest = text.partition(ROWS)
    start, end = rest.find(LAST[0]), rest.find(LAST[1])
    if not mark or start < 0 or end < start:
        raise ValueError(f"{page} has no place for a campaign's figures")
    figures = "\n".join(summary.lines(result, violations))
    shown = f"\n\n{figures}\n\n![Seconds until the service answers again, by fault]({PICTURE})\n\n"
    rest = rest[: start + len(LAST[0])] + shown + rest[end:]
    page.write_text(f"{before}{_row(result, violations)}\n{mark}{rest}")
    (page.parent / PICTURE).write_text(picture.svg(_times(result)))


def _row(result: Result, violations: list[Violation]) -> str:
    faults = sum(len(one.names) for one in result.injected)
    machine = f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.machine()}"
    day = datetime.now(UTC).date().isoformat()
    verdict = "clean" if not (result.lost or result.gave_up) else "the service did not come back"
    verdict = f"{len(violations)} violations" if violations else verdict
    cells = (day, result.seed, f"{result.seconds:.0f}", f"{len(result.history.operations):,}", faults, verdict, machine)
    return "| " + " | ".join(map(str, cells)) + " |"


def _times(result: Result) -> dict[str, list[float]]:
    """Of faults that came alone."""
    times = defaultdict(list)
    for one in result.injected:
        if len(one.names) == 1 and one.recovered is not None:
            times[one.names[0]].append(one.recovered)
    return dict(times)
