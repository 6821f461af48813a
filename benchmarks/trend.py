"""Whether a series creeps: the median slope between any two points (Theil 1950, Sen 1968), which spikes do not move."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

SHARE = 0.03
"""Growth over the measured time, of the median, from which a series creeps; and in units, whichever is more."""
UNITS = {
    "rss_mb": 10.0,
    "private_mb_each": 1.0,
    "used_mb": 2.0,
    "fds": 10.0,
    "fds_each": 3.0,
    "threads": 5.0,
    "connections": 3.0,
    "keys": 100.0,
}


@dataclass(frozen=True, slots=True)
class Trend:
    """`growth`: over the measured time, in the series' unit. `creeps` is None for what grows by design."""

    name: str
    median: float
    growth: float
    creeps: bool | None


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Units a second; 0 with fewer than two times."""
    points = zip(times, values, strict=True)
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if b[0] > a[0]]
    return statistics.median(slopes) if slopes else 0.0


def trend(name: str, times: Sequence[float], values: Sequence[float]) -> Trend:
    """Of the second half, when caches are warm."""
    half = len(times) // 2
    late, seen = times[half:], values[half:]
    middle = statistics.median(seen)
    growth = slope(late, seen) * (late[-1] - late[0])
    units = UNITS.get(name.rsplit(" ", 1)[-1])
    return Trend(name, middle, growth, None if units is None else growth > max(units, SHARE * middle))
