"""A circuit breaker's state machine (Nygard, Release It!, 2nd ed., 5.2): a table, and what makes it move."""

from collections import deque
from enum import StrEnum

from domain.model import Breaker

MOST_CALLS = 1000  # of the window that are remembered


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Sign(StrEnum):
    TRIPPED = "tripped"  # too many failures, or a probe that failed, here or in another replica
    RESTED = "rested"  # open for long enough
    ANSWERED = "answered"  # a probe, here or in another replica, got an answer


MOVES = {
    (State.CLOSED, Sign.TRIPPED): State.OPEN,
    (State.OPEN, Sign.TRIPPED): State.OPEN,
    (State.OPEN, Sign.RESTED): State.HALF_OPEN,
    (State.OPEN, Sign.ANSWERED): State.CLOSED,
    (State.HALF_OPEN, Sign.TRIPPED): State.OPEN,
    (State.HALF_OPEN, Sign.ANSWERED): State.CLOSED,
}


class Circuit:
    """The breaker of one model, or of another service. Times are monotonic seconds; `until`: when an open one has
    rested.

    It trips after `settings.failures` failures in a row within `settings.window`, or once at least as many are half of
    the window's calls. A half-open one lets a single probe through, which `probing` holds.
    """

    def __init__(self, settings: Breaker) -> None:
        self.settings = settings
        self.until, self.changed = 0.0, 0.0
        self.probing = False
        self.ask_again = 0.0
        self._state = State.CLOSED
        self._forget()

    def state(self, now: float) -> State:
        if self._state is State.OPEN and now >= self.until:
            self._move(Sign.RESTED, self.changed)  # no news to anybody
        return self._state

    def succeeded(self, now: float) -> None:
        """A call was answered that began while this was closed."""
        self._row.clear()
        self._count(now, False)

    def failed(self, now: float) -> bool:
        """A call failed that began while this was closed; True if that trips it."""
        if self._state is not State.CLOSED:
            return False
        settings = self.settings
        self._row.append(now)
        self._count(now, True)
        in_a_row = len(self._row) >= settings.failures and now - self._row[-settings.failures] <= settings.window
        if in_a_row or (self._failures >= settings.failures and 2 * self._failures >= len(self._calls)):
            self.open(now, now + settings.open)
            return True
        return False

    def open(self, now: float, until: float) -> None:
        self._move(Sign.TRIPPED, now)
        self.until = until

    def close(self, now: float) -> None:
        if self._state is not State.CLOSED:
            self._move(Sign.ANSWERED, now)
            self._forget()

    def _move(self, sign: Sign, now: float) -> None:
        self._state, self.changed = MOVES[self._state, sign], now

    def _count(self, now: float, failed: bool) -> None:
        self._calls.append((now, failed))
        self._failures += failed
        while len(self._calls) > MOST_CALLS or self._calls[0][0] < now - self.settings.window:
            self._failures -= self._calls.popleft()[1]

    def _forget(self) -> None:
        self._row: deque[float] = deque(maxlen=max(self.settings.failures, 1))
        self._calls: deque[tuple[float, bool]] = deque()
        self._failures = 0
