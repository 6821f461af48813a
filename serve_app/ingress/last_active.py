"""When users were last active, written off the path of requests, at most once a minute a user."""

import asyncio
import logging
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime

from domain.errors import BrainError
from storage.users import PostgresUsers

log = logging.getLogger("brain.access")
EVERY = 60.0  # seconds between two writes about one user
PAUSE = 5.0  # seconds that sightings are gathered
BOUND = 20_000


class LastActive:
    def __init__(self, users: PostgresUsers, now: Callable[[], float] = time.monotonic) -> None:
        self._users, self._now = users, now
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._waiting: dict[tuple[str, str], datetime] = {}
        self._task: asyncio.Task[None] | None = None

    def saw(self, tenant: str, user: str) -> None:
        """A request of this user came; costs no I/O."""
        key, now = (tenant, user), self._now()
        told = self._told.get(key)
        if told is not None and now - told < EVERY:
            return
        self._told[key] = now
        self._told.move_to_end(key)
        if len(self._told) > BOUND:
            self._told.popitem(last=False)
        self._waiting[key] = datetime.now(UTC)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_later(), name="last-active")

    async def write(self) -> None:
        """Write what waits; what cannot be written is forgotten."""
        waiting, self._waiting = self._waiting, {}
        by_tenant: defaultdict[str, dict[str, datetime]] = defaultdict(dict)
        for (tenant, user), at in waiting.items():
            by_tenant[tenant][user] = at
        for tenant, users in by_tenant.items():
            try:
                await self._users.seen(tenant, users)
            except BrainError as error:
                log.warning("when users were active was not written: %s", error)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.write()

    async def _write_later(self) -> None:
        while self._waiting:
            await asyncio.sleep(PAUSE)
            await self.write()
