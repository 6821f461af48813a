"""When each key was used last: noted beside the request, written in batches, at the most once a minute for each key."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from domain.errors import BrainError
from domain.tenant import Caller

log = logging.getLogger("brain.access")

EVERY, APART = 5.0, 60.0  # seconds between batches, and between two times of one key
BOUND = 10_000  # keys that are remembered

Write = Callable[[Mapping[tuple[str, str], float]], Awaitable[None]]


class KeysUsed:
    """`write` puts down keys by tenant and id with the Unix time of their last use."""

    def __init__(self, write: Write, clock: Callable[[], float] = time.time, every: float = EVERY) -> None:
        self._write, self._clock, self._every = write, clock, every
        self._noted: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._waiting: dict[tuple[str, str], float] = {}
        self._task: asyncio.Task[None] | None = None

    def saw(self, caller: Caller) -> None:
        """Costs no I/O. Access tokens are no keys."""
        if caller.token is not None:
            return
        key, now = (caller.tenant, caller.key_id), self._clock()
        if now - self._noted.get(key, 0.0) < APART or len(self._waiting) >= BOUND:
            return
        self._noted[key] = self._waiting[key] = now
        if len(self._noted) > BOUND:
            self._noted.popitem(last=False)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="keys used")

    async def close(self) -> None:
        """Write what waits, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with suppress(BrainError, TimeoutError):
            await asyncio.wait_for(self.flush(), 2)

    async def flush(self) -> None:
        """Write what waits; it waits on where that fails. Raises `Unavailable`."""
        seen, self._waiting = self._waiting, {}
        if not seen:
            return
        try:
            await self._write(seen)
        except BaseException:
            self._waiting = seen | self._waiting
            raise

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.flush()
            except BrainError as error:
                log.warning("when keys were used is not written at the moment: %s", error)
            except Exception:
                log.exception("when keys were used cannot be written")
