"""Tells how far the outbox has grown, also while no indexer lives that could tell it."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from domain.errors import Unavailable
from domain.indexing import Lag
from storage.outbox import OutboxSize, PostgresOutbox

log = logging.getLogger("brain.outbox")
EVERY = 15.0  # seconds
LATE = 600.0  # seconds that an event waits until something is wrong


class OutboxWatch:
    """`outbox`: of the consumer that is watched."""

    def __init__(self, outbox: PostgresOutbox, registry: CollectorRegistry, every: float = EVERY) -> None:
        self._outbox, self._every = outbox, every
        self._lag, self._size = Lag(0, 0.0, 0), OutboxSize(0, 0.0)
        self._task: asyncio.Task[None] | None = None
        for name, text, value in (
            ("brain_outbox_bytes", "What the outbox takes, with indexes", lambda: self._size.bytes),
            ("brain_outbox_oldest_seconds", "Age of its oldest row", lambda: self._size.seconds),
            ("brain_outbox_waiting_rows", "Events that wait to be indexed", lambda: self._lag.waiting),
            ("brain_outbox_waiting_seconds", "Age of the oldest of these", lambda: self._lag.seconds),
        ):
            Gauge(name, text, registry=registry).set_function(value)

    def start(self) -> None:
        self._task = asyncio.create_task(self._look())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        self._lag, self._size = await self._outbox.lag(), await self._outbox.size()

    def check(self) -> None:
        """Raises `Unavailable` where events have waited for too long, as of the last look."""
        if self._lag.seconds > LATE:
            minutes = self._lag.seconds / 60
            raise Unavailable(
                f"{self._lag.waiting:,} events wait to be indexed, the oldest for {minutes:,.0f} minutes; the"
                f" outbox has grown to {self._size.bytes / 1e6:,.0f} MB"
            )

    async def _look(self) -> None:
        while True:
            try:
                await self.look()
            except Exception as error:
                log.debug("the outbox cannot be looked at: %s", error)
            await asyncio.sleep(self._every)


def check_writing(told: Mapping[str, Any]) -> None:
    """Raises `Unavailable` where an indexer tells (`IndexerReplica.ping`) that it writes nothing, and why."""
    if not told["writable"]:
        raise Unavailable(told.get("problem") or "it has not learned yet which embedder runs")
