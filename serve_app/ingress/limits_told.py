"""Tells in the outbox that a tenant's requests are refused: once a minute by limit, however many are."""

import asyncio
import logging
import time

from domain.errors import BrainError
from domain.limits import Rule
from storage.event_log import tell_limit
from storage.postgres import Pool

log = logging.getLogger("brain.limits")
EVERY = 60.0  # seconds; other replicas are counted in by the database
MOST = 10_000  # limits that are remembered


class LimitsTold:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._told: dict[tuple[str, str], float] = {}
        self._telling: set[asyncio.Task[None]] = set()

    def saw(self, tenant: str, rule: Rule) -> None:
        """A request was refused. Costs nothing where it was told a moment ago."""
        limit, now = f"{rule.subject}_{rule.kind}", time.monotonic()
        if now - self._told.get((tenant, limit), -EVERY) < EVERY:
            return
        if len(self._told) >= MOST:
            self._told.clear()
        self._told[tenant, limit] = now
        task = asyncio.create_task(self._tell(tenant, limit, rule.limit))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, tenant: str, limit: str, value: int) -> None:
        try:
            await tell_limit(self._pool, tenant, limit, value)
        except BrainError as error:
            log.debug("nobody is told that a limit is exceeded: %s", error)
