"""Batches of what waits: what arrives while one batch runs goes together in the next, and nothing waits for a clock.

`@serve.batch` (Ray 2.60) does not do this: with `batch_wait_timeout_s=0` it cuts a batch of one for each call, and
these queue up behind the running one (200 calls 2 ms apart, each pass 10 ms + 3 ms a text: 199 passes); a larger value
delays the single message. Nor can it be called outside a Serve replica.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Entry = tuple[Item, asyncio.Future[Result]]
Entries = list[Entry[Item, Result]]


class Batches(Generic[Item, Result]):
    """Runs `work` in `executor` on what waits, one batch at a time.

    A batch holds up to `largest` urgent items and up to `bulk` others: bulk goes on under load, and delays an urgent
    item by no more than one small batch. `work` answers one result an item, in order; if it raises, so do its callers.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Sequence[Result]], executor: Executor, largest: int = 64, bulk: int = 8
    ) -> None:
        self._work, self._executor = work, executor
        self._urgent: deque[Entry[Item, Result]] = deque()
        self._bulk: deque[Entry[Item, Result]] = deque()
        self._limits = ((self._urgent, largest), (self._bulk, bulk))
        self._running: asyncio.Task[None] | None = None

    async def run(self, item: Item, *, urgent: bool = True) -> Result:
        """The result of `item`. A cancelled call that has not begun is never worked on."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        (self._urgent if urgent else self._bulk).append((item, future))
        if self._running is None:
            # not in the context of the one request that happens to start it
            self._running = loop.create_task(self._drain(), context=contextvars.Context())
        return await future

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        batch: Entries[Item, Result] = []
        try:
            while batch := self._next():
                try:
                    results = await loop.run_in_executor(self._executor, self._work, [item for item, _ in batch])
                    settled = list(zip(batch, results, strict=True))
                except Exception as error:
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                else:
                    for (_, future), result in settled:
                        if not future.done():
                            future.set_result(result)
        finally:
            self._running = None
            for _, future in (*batch, *self._urgent, *self._bulk):  # all done already, unless this was cancelled
                future.cancel()

    def _next(self) -> Entries[Item, Result]:
        batch: Entries[Item, Result] = []
        for lane, limit in self._limits:
            room = limit
            while lane and room:
                entry = lane.popleft()
                if not entry[1].done():
                    batch.append(entry)
                    room -= 1
        return batch
