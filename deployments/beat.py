"""A clock for the answers of one replica: what they say between two of its beats travels, and is handled, together."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Beat:
    """`interval`: seconds from a beat to the next one; asked anew for each. There are none while nobody waits."""

    def __init__(self, interval: Callable[[], float]) -> None:
        self._interval = interval
        self._answers: dict[str, asyncio.Event] = {}
        self._ended: set[str] = set()
        self._waiting: set[str] = set()
        self._last = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many answers run."""
        return len(self._answers)

    @contextmanager
    def answer(self, name: str) -> Iterator[None]:
        """An answer runs while the block does."""
        self._answers[name] = asyncio.Event()
        try:
            yield
        finally:
            del self._answers[name]
            self._ended.discard(name)
            self._waiting.discard(name)

    async def wait(self, name: str) -> None:
        """Until the next beat; an answer that has ended waits for none."""
        if name in self._ended:
            return
        heard = self._answers[name]
        heard.clear()
        self._waiting.add(name)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._last + self._interval(), self._now, loop)
        await heard.wait()

    def end(self, name: str) -> None:
        """Everything of this answer is there; of an unknown one nothing needs to be done."""
        if name in self._answers:
            self._ended.add(name)
            self._answers[name].set()

    def _now(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, self._last = None, loop.time()
        for name in self._waiting:
            self._answers[name].set()
        self._waiting.clear()
