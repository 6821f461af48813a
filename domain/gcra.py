"""The generic cell rate algorithm (ITU-T I.371; virtual scheduling): a bucket that refills, kept as one time.

`tat`, the theoretical arrival time, is when the bucket will be full again. The same arithmetic, in microseconds, is in
`storage/lua/limits.lua`. Times are in seconds of one clock, rates a minute.
"""

from domain.limits import MINUTE, MOST_OWED

SLACK = 1e-6  # seconds: what rounding may take from a whole bucket


def sane(tat: float, now: float, owed: float = MOST_OWED) -> float:
    """`tat`, no further ahead than it can have come to be: a clock that was put back shuts no bucket for as long."""
    return max(now, min(tat, now + MINUTE + owed))


def wait(tat: float, now: float, limit: int, cost: int) -> float:
    """Seconds until `cost` can be taken; now, if it is at most `SLACK`.

    What is more than a whole bucket is let in by a full one, and the rest is owed.
    """
    return tat + min(cost, limit) * MINUTE / limit - (now + MINUTE)


def taken(tat: float, now: float, limit: int, cost: int) -> float:
    """`tat` after `cost` was taken, or given back where it is below 0: no bucket is fuller than full."""
    if cost > 0:
        return min(max(tat, now) + cost * MINUTE / limit, now + MINUTE + MOST_OWED)
    return max(now, tat + cost * MINUTE / limit)


def remaining(tat: float, now: float, limit: int) -> int:
    """What can be taken at once."""
    return max(0, int((now + MINUTE - tat) * limit / MINUTE + SLACK))
