"""Each replica's view of the catalog: its configuration, and what is registered in Postgres, looked at every second.

Every replica (Ingress, ConversationHost, HostedLLM) asks one small query a second, HostedLLM over a single connection:
32 microseconds of a core each in PostgreSQL, about a hundredth of one for 300 replicas, and 4 MB a connection.
LISTEN/NOTIFY would not pass a pooler in transaction mode; a copy in Redis could be lost, or changed by whoever writes
there, and with it where providers' keys are sent.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from domain.catalog_merge import CatalogEntry, Merged, merge
from domain.errors import BrainError, Unavailable
from domain.model import AUTO, Catalog
from domain.model_settings import ModelSettings
from storage.catalog import CachedSettings, PostgresCatalog, Versions

log = logging.getLogger("brain.catalog")

EVERY = 1.0  # seconds
FIRST = 3.0  # seconds that a start waits for the database
PAUSE = 0.25  # seconds between looks that callers ask for
LAG = 5.0  # seconds that a rollout may take from one replica to another

Apply = Callable[[Catalog], Awaitable[None]]


class CatalogWatch:
    """Gives `apply` the merged catalog whenever it changes, and makes `settings` forget tenants whose rules changed.

    While the database is away the last known entries hold; before any were read, the configuration alone does.
    """

    def __init__(
        self,
        store: PostgresCatalog,
        apply: Apply,
        settings: CachedSettings[ModelSettings] | None = None,
        every: float = EVERY,
    ) -> None:
        self.store = store
        self.configured = Catalog()
        self.merged = Merged(self.configured)
        self._apply, self._settings, self._every = apply, settings, every
        self._entries: list[CatalogEntry] = []
        self._seen = Versions()
        self._asked_at = float("-inf")
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def configure(self, configured: Catalog) -> None:
        """Use this configuration from now on. Nothing is applied before the database was asked for its entries."""
        self.configured = configured
        try:
            async with asyncio.timeout(FIRST):
                await self.refresh()
        except (BrainError, TimeoutError) as error:
            log.warning("the registered models are not known yet: %s", error or "no answer in time")
        async with self._lock:
            await self._use()
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name="catalog")

    async def refresh(self) -> None:
        """Look now; raises `Unavailable`."""
        async with self._lock:
            versions = await self.store.versions()
            if versions.providers != self._seen.providers:
                version, self._entries = await self.store.entries()
                self._seen = Versions(version, self._seen.settings)
                try:
                    await self._use()
                except Exception:
                    log.exception("the registered models cannot be used")
            if versions.settings != self._seen.settings:
                await self._forget(versions.settings)
                self._seen = Versions(self._seen.providers, versions.settings)

    async def knows(self, model_id: str) -> bool:
        """Whether some provider serves this id; looks again, at most every `PAUSE`, where this replica has not heard of
        it: whoever asks may have heard first."""
        if model_id == AUTO or self.merged.catalog.find(model_id) is not None:
            return True
        now = asyncio.get_running_loop().time()
        if now - self._asked_at >= PAUSE:
            self._asked_at = now
            with suppress(Unavailable):
                await self.refresh()
        return self.merged.catalog.find(model_id) is not None

    async def hears_of(self, model_id: str) -> bool:
        """As `knows`, for an id that another replica took for known: one of the two lags behind, so wait a moment."""
        end = asyncio.get_running_loop().time() + LAG
        while not await self.knows(model_id):
            if asyncio.get_running_loop().time() > end:
                return False
            await asyncio.sleep(PAUSE)
        return True

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _use(self) -> None:
        before = self.merged.refused
        self.merged = merge(self.configured, self._entries)
        for name, reason in self.merged.refused.items():
            if before.get(name) != reason:
                log.error("the registered provider %s is left out: %s", name, reason)
        await self._apply(self.merged.catalog)

    async def _forget(self, version: int) -> None:
        if self._settings is None:
            return
        known = self._seen.settings
        self._settings.forget(await self.store.changed_since(known) if 0 <= known < version else None)

    async def _watch(self) -> None:
        away = False
        while True:
            await asyncio.sleep(self._every * random.uniform(0.8, 1.2))
            try:
                await self.refresh()
                away = False
            except Exception as error:
                if not away:
                    log.warning("the catalog cannot be looked at: %r", error)
                away = True
