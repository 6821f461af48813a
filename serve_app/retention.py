"""Deletes, while the service runs, what tenants keep no longer. Several replicas may do it beside each other."""

import asyncio
import logging
import random

from domain.errors import BrainError
from storage.postgres import Pool
from storage.retention import delete_expired, expired_conversations

log = logging.getLogger("brain.retention")

EVERY = 300.0  # seconds between looks
AT_ONCE = 100  # conversations of one look
PAUSE = 0.02  # seconds after each, which other work may use


class Retention:
    """`every`: seconds; a look that found as much as it may is followed by the next at once."""

    def __init__(self, pool: Pool, every: float = EVERY, pause: float = PAUSE) -> None:
        self._pool, self._every, self._pause = pool, every, pause
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="retention")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def step(self) -> int:
        """Delete what is past its time, `AT_ONCE` conversations at the most; how many it was. Raises `Unavailable`."""
        gone = 0
        for key in await expired_conversations(self._pool, AT_ONCE):
            gone += await delete_expired(self._pool, key)
            await asyncio.sleep(self._pause)
        if gone:
            log.info("deleted %d conversations that their tenants keep no longer", gone)
        return gone

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every * random.uniform(0.8, 1.2))
            try:
                while await self.step() >= AT_ONCE:
                    continue
            except BrainError as error:
                log.warning("what tenants keep no longer is not deleted at the moment: %s", error)
            except Exception:
                log.exception("what tenants keep no longer cannot be deleted")
