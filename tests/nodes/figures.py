"""What clients noticed of a scenario, from their history."""

import itertools
from dataclasses import dataclass

from tests.faults.history import History, Operation

LONG = 10.0  # seconds from which on an answer is late
WRITES = frozenset({"create", "send", "regenerate"})


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds count from the fault's beginning.

    `failed`: requests that ended otherwise than with an answer, or with "come again" (503 with `retry-after`, 429).
    `later`: those that were told to come again. `broken`: streams that broke, and were resumed. `never`: requests that
    had no answer in the end. `pause`: the longest time in which nobody was answered. `wait`: the longest time from a
    request's first try to its answer. `again`: from then on all was answered, and in time.
    """

    operations: int
    failed: int
    later: int
    broken: int
    never: int
    pause: float
    wait: float
    again: float


def figures(history: History, began: float) -> Figures:
    calls = history.operations
    late = [call.ended - began for call in calls if call.ended > began and (_lost(call) or _slow(call))]
    answered = sorted(call.known_at for call in calls if call.acknowledged)
    first: dict[str, float] = {}
    told: dict[str, float] = {}
    for call in calls:
        if call.key and call.kind in WRITES:
            first[call.key] = min(call.began, first.get(call.key, call.began))
            if call.acknowledged or (call.outcome == "refused" and call.http != 429):
                told[call.key] = min(call.known_at, told.get(call.key, call.known_at))
    return Figures(
        len(calls),
        sum(_failed(call) for call in calls),
        sum(_later(call) for call in calls),
        sum(_broken(call) for call in calls),
        len(first.keys() - told.keys()),
        max((b - a for a, b in itertools.pairwise(answered)), default=0.0),
        max((told[key] - first[key] for key in told), default=0.0),
        max(late, default=0.0),
    )


def failures(history: History) -> list[Operation]:
    return [call for call in history.operations if _failed(call)]


def _later(call: Operation) -> bool:
    return call.http in (429, 503) and call.retry_after is not None


def _broken(call: Operation) -> bool:
    return call.outcome == "unknown" and call.http == 200 and not call.left


def _failed(call: Operation) -> bool:
    return call.outcome == "unknown" and not _later(call) and not _broken(call) and not call.left


def _lost(call: Operation) -> bool:
    return call.outcome == "unknown" and not _broken(call) and not call.left


def _slow(call: Operation) -> bool:
    """Whether its client waited for long without hearing anything."""
    times = (call.began, *call.times, call.ended) if call.times else (call.began, call.ended)
    return max(b - a for a, b in itertools.pairwise(times)) > LONG
