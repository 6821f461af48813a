"""Notices that the machine's clock was put back, which part of Ray does not survive.

Ray's core worker (2.60) times its periodic work by the wall clock. Put back by an hour, that work of each process
stands still for an hour; among it is sending calls again to an actor that has started anew. After the next death of
Serve's controller such a process never hears of replicas that start, and calls that it makes wait for ever. So a
replica that saw its clock put back is not healthy, and Serve starts another one in its place.
"""

import threading
import time
from collections.abc import Callable

BACK = 5.0  # seconds: what stands still for less is not worth a replica
EVERY = 0.25  # seconds between two looks


class ClockPutBack(Exception):
    """The machine's clock was put back: Ray's own timers of this process stand still until it has caught up."""


class Clock:
    """`wall`: seconds, that jump as the machine's clock does; `steady`: seconds, that do not."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._most = self._ahead()
        self._back = 0.0
        self._watching = False

    def watch(self) -> None:
        """Look from now on, in a thread: what happens to the clock happens also while an event loop is busy."""
        if not self._watching:
            self._watching = True
            threading.Thread(target=self._look_on, name="clock", daemon=True).start()

    def look(self) -> None:
        ahead = self._ahead()
        self._back = max(self._back, self._most - ahead)
        self._most = max(self._most, ahead)

    def check(self) -> None:
        """Raises `ClockPutBack`."""
        self.look()
        if self._back > BACK:
            raise ClockPutBack(f"the clock was put back by {self._back:.0f} s")

    def _ahead(self) -> float:
        return self._wall() - self._steady()

    def _look_on(self) -> None:
        while True:
            time.sleep(EVERY)
            self.look()
