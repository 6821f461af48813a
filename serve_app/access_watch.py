"""A replica's ear for what changes of access: revoked keys, tenants suspended, users' roles, signing keys.

One small query every `EVERY` seconds in each ingress replica, and one a second in each host; what changed is read only
where something did.
LISTEN/NOTIFY would not pass a pooler in transaction mode, and a channel of Redis may lose what it was told.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from domain.errors import BrainError
from storage.access import Access, AccessChange
from storage.catalog import CachedSettings

log = logging.getLogger("brain.access")

EVERY = 0.3  # seconds
CURRENT = 1.0  # seconds after a look in which nothing older than them can be unheard of

Heard = Callable[[list[AccessChange] | None], Awaitable[None] | None]


def forgets_tenants(settings: CachedSettings[Any]) -> Heard:
    """A listener that makes `settings` forget the tenants that changed."""

    def heard(changes: list[AccessChange] | None) -> None:
        if changes is None:
            settings.forget()
        elif changed := [change.tenant for change in changes if change.kind == "tenant"]:
            settings.forget(changed)

    return heard


class AccessWatch:
    """Tells each of `listeners` what changed, None where that is too much to tell or may have been missed."""

    def __init__(self, access: Access, every: float = EVERY, now: Callable[[], float] = time.monotonic) -> None:
        self.listeners: list[Heard] = []
        self._access, self._every, self._now = access, every, now
        self._version: int | None = None
        self._looked_at = float("-inf")
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def current(self) -> bool:
        """Whether what changed longer ago than `CURRENT` seconds is known here."""
        return self._now() - self._looked_at < CURRENT

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="access")

    async def close(self) -> None:
        self._closed = True  # `wait_for` of Python 3.11 loses a cancellation that comes as its work ends
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def refresh(self) -> None:
        """Look now, as after a change made here. Raises `Unavailable`."""
        async with self._lock:
            began = self._now()
            version = await self._access.access_version()
            if version != self._version:
                known = self._version
                changes = await self._access.access_since(known) if known is not None and known < version else None
                changes = changes or None  # a version that nothing tells of: a database that was put back
                for heard in self.listeners:
                    if (told := heard(changes)) is not None:
                        await told
                self._version = version if not changes else max(version, changes[-1].version)
            self._looked_at = began

    async def _watch(self) -> None:
        away = False
        while not self._closed:
            try:
                async with asyncio.timeout(5):  # wait_for of Python 3.11 may swallow the cancellation of `close`
                    await self.refresh()
                away = False
            except (BrainError, TimeoutError) as error:
                if not away:
                    log.warning("what changed of access cannot be looked at: %s", error or "no answer in time")
                away = True
            except Exception:
                log.exception("what changed of access cannot be told")
            await asyncio.sleep(self._every * random.uniform(0.8, 1.2))
