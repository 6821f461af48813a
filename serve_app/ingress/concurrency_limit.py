"""How many turns may be under way before new ones are refused: as many as keep the wait for a first text short.

CoDel's measure (Nichols and Jacobson, 2012: the least wait of an interval, so that a long prompt is no queue) moves a
limit on concurrency, as in TCP Vegas and Netflix's concurrency-limits: the wait beyond the target, times the rate at
which turns get their first text, is how many turns are too many. Without such waiting there is no limit at all.
"""

import math
from collections import deque

INTERVAL = 0.5  # seconds of which the least wait counts
BASES = 20  # spans of BASE_SPAN whose least wait is what a turn takes without a queue
BASE_SPAN = 30.0
FLOOR = 4  # turns that are always let in, so that waits are measured
RELEASE = 10.0  # seconds without need of the limit, until there is none


class ConcurrencyLimit:
    """`target`: seconds that a first text may wait for others. Times are given, in seconds of one steady clock.

    `value` is infinite while nothing waits.
    """

    def __init__(self, target: float) -> None:
        self._target = target
        self.value = math.inf
        self.drain = 0.0  # first texts a second, of the last interval
        self._opened: float | None = None  # the interval's begin
        self._least, self._first_texts, self._most = math.inf, 0, 0
        self._counted_from = -math.inf  # turns that began before the limit's last fall say nothing of what it did
        self._needed = self._heard = -math.inf
        self._bases: deque[tuple[float, float]] = deque(maxlen=BASES)  # (span's begin, least wait)

    @property
    def base(self) -> float:
        """Seconds to a first text when nothing waits, as far as seen."""
        return min((least for _, least in self._bases), default=math.inf)

    def admits(self, running: int, now: float) -> bool:
        """Whether a further turn may begin beside `running` ones; a refusal shows that the limit is needed."""
        if self.value < math.inf and now - self._heard > RELEASE:
            # Nothing is measured any more: whole replies, or a provider that hangs.
            self.value, self._heard = self.value * 2, now
        if running < self.value:
            return True
        self._needed = now
        return False

    def first_text(self, began: float, now: float, running: int) -> None:
        """A turn that began at `began` has its first text now, one of `running`."""
        wait = now - began
        if not self._bases or now - self._bases[-1][0] >= BASE_SPAN:
            self._bases.append((now, wait))
        elif wait < self._bases[-1][1]:
            self._bases[-1] = (self._bases[-1][0], wait)
        if self._opened is None:
            self._opened = now
        self._first_texts, self._heard = self._first_texts + 1, now
        self._most = max(self._most, running)
        if began >= self._counted_from:
            self._least = min(self._least, wait)
        length = now - self._opened
        if length >= INTERVAL:
            self._close(length, now)

    def _close(self, length: float, now: float) -> None:
        self.drain = self._first_texts / length
        if math.isfinite(self._least):
            spare = self.base + self._target - self._least  # seconds that a turn may still wait; below 0, too many wait
            if spare < 0:
                self.value = max(FLOOR, min(self.value, self._most) + self.drain * spare)
                self._counted_from = self._needed = now
            elif now - self._needed <= INTERVAL + length:
                self.value += max(1.0, self.drain * spare / 2)
        if now - self._needed > RELEASE:
            self.value = math.inf
        self._opened, self._least, self._first_texts, self._most = now, math.inf, 0, 0
