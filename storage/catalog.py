"""The catalog's part in Postgres: providers that an operator registered, and tenants' settings for models.

Two versions tell what has changed, in one row that costs one small query to read: that of the providers and that of the
settings. Both only grow, and no restored backup repeats one.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from domain.caching import CacheStatistics
from domain.catalog_merge import CatalogEntry
from domain.errors import BrainError, NotFound, Unavailable
from domain.model_settings import ModelSettings
from storage.postgres import Pool, asking, call, reading
from storage.retry import again

log = logging.getLogger("brain.catalog")
S = TypeVar("S")

FRESH = 60.0  # seconds that settings are believed without a word of a change
BOUND = 10_000  # tenants
MOST_CHANGED = 1000  # tenants that are told one by one


class EntryChanged(BrainError):
    """This entry was changed by somebody else meanwhile."""

    status = 412
    type = "conflict_error"
    code = "precondition_failed"


@dataclass(frozen=True, slots=True)
class Versions:
    providers: int = -1
    settings: int = -1


class PostgresCatalog:
    """Reads raise `Unavailable` after three tries; writes raise it, or `CommitUnknown`, and may be repeated."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def versions(self) -> Versions:
        row = await call(self._pool, "SELECT providers, settings FROM brain.catalog_version")
        return Versions(row["providers"], row["settings"])

    async def entries(self) -> tuple[int, list[CatalogEntry]]:
        """The version of the providers and all entries, as of one moment."""
        row = await call(
            self._pool,
            "SELECT v.providers, (SELECT coalesce(jsonb_agg(jsonb_build_array(p.name, p.version, p.removed, p.entry)"
            " ORDER BY p.name), '[]') FROM brain.providers p) AS entries FROM brain.catalog_version v",
        )
        return row["providers"], [_entry(*one) for one in row["entries"]]

    @again
    async def entry(self, name: str) -> CatalogEntry | None:
        """The entry of this name, also one that says that the provider is removed; None where there is none."""
        row = await call(self._pool, "SELECT name, version, removed, entry FROM brain.providers WHERE name = $1", name)
        return None if row is None else _entry(*row)

    async def put(self, name: str, provider: Mapping[str, Any] | None, expected: int) -> CatalogEntry:
        """Write an entry, None to remove the provider. `expected`: the version that the entry has now, 0 where there is
        none; raises `EntryChanged` where it has another."""
        row = await call(self._pool, "SELECT brain.put_provider($1, $2, $3) AS version", name, provider, expected)
        if row["version"] is None:
            raise EntryChanged
        return CatalogEntry(name, provider, row["version"])

    async def reset(self, name: str, expected: int) -> None:
        """Forget the entry: the configuration's provider of this name, if there is one, counts again."""
        row = await call(self._pool, "SELECT brain.reset_provider($1, $2) AS done", name, expected)
        if not row["done"]:
            raise EntryChanged

    @again
    async def settings(self, tenant: str) -> ModelSettings:
        """The tenant's rules; those of a tenant that has none of its own allow everything."""
        async with reading(self._pool, tenant) as lent:
            found = await lent.fetchval("SELECT settings FROM brain.model_settings WHERE tenant_id = $1", tenant)
        return _settings(tenant, found)

    @again
    async def has_tenant(self, tenant: str) -> bool:
        async with reading(self._pool, tenant) as lent:
            found: bool = await lent.fetchval("SELECT EXISTS (SELECT FROM brain.tenants WHERE id = $1)", tenant)
        return found

    @again
    async def change_settings(self, tenant: str, change: Callable[[ModelSettings], ModelSettings]) -> ModelSettings:
        """Put `change` of the stored rules in their place, in one transaction; what `change` raises leaves them as they
        are. Raises `NotFound` for an unknown tenant."""
        async with reading(self._pool, tenant) as lent:
            if not await lent.fetchval("SELECT EXISTS (SELECT FROM brain.tenants WHERE id = $1)", tenant):
                raise NotFound("there is no such tenant")
            await lent.execute(
                "INSERT INTO brain.model_settings (tenant_id, settings) VALUES ($1, '{}') ON CONFLICT DO NOTHING",
                tenant,
            )
            stored = await lent.fetchval(
                "SELECT settings FROM brain.model_settings WHERE tenant_id = $1 FOR UPDATE", tenant
            )
            changed = change(_settings(tenant, stored))
            await lent.execute(
                "UPDATE brain.model_settings SET settings = $2, updated_at = clock_timestamp() WHERE tenant_id = $1",
                tenant,
                changed.model_dump(mode="json", exclude_unset=True),
            )
        return changed

    async def changed_since(self, version: int) -> list[str] | None:
        """Tenants whose settings changed after this version; None where they are too many to tell."""
        async with asking(self._pool) as lent:
            rows = await lent.fetch("SELECT brain.model_settings_since($1, $2) AS id", version, MOST_CHANGED + 1)
        return None if len(rows) > MOST_CHANGED else [row["id"] for row in rows]


class CachedSettings(Generic[S]):
    """`domain.ports.TenantModels` or `TenantsSettings` over `read`, for the `bound` tenants that asked last.

    `forget` makes known settings stale: they are read again at their next use, and still serve while the database is
    away.
    """

    shared = False

    def __init__(
        self,
        read: Callable[[str], Awaitable[S]],
        bound: int = BOUND,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read, self._bound, self._now = read, bound, now
        self._known: OrderedDict[str, tuple[float, S]] = OrderedDict()
        self._asked: dict[str, asyncio.Task[S]] = {}
        self._forgotten = 0
        self._hits = self._misses = self._evicted = 0

    @property
    def statistics(self) -> CacheStatistics:
        return CacheStatistics(self._hits, self._misses, self._evicted, len(self._known), self._bound)

    async def flush(self) -> None:
        """Stale settings still serve while the database is away."""
        self.forget()

    async def settings(self, tenant: str) -> S:
        known = self._known.get(tenant)
        if known is not None and self._now() < known[0]:
            self._known.move_to_end(tenant)
            self._hits += 1
            return known[1]
        self._misses += 1
        asked = self._asked.get(tenant)
        if asked is None:
            asked = self._asked[tenant] = asyncio.create_task(self._look_up(tenant))
            asked.add_done_callback(lambda _: self._asked.pop(tenant, None))
        try:
            return await asyncio.shield(asked)
        except Unavailable:
            if known is None:
                raise
            return known[1]

    def forget(self, tenants: Iterable[str] | None = None) -> None:
        """Believe what is known of these tenants, of all where none are named, no more."""
        self._forgotten += 1
        for tenant in self._known if tenants is None else tenants:
            if (known := self._known.get(tenant)) is not None:
                self._known[tenant] = (float("-inf"), known[1])

    async def _look_up(self, tenant: str) -> S:
        forgotten = self._forgotten
        found = await self._read(tenant)
        overtaken = forgotten != self._forgotten  # a change was told while this was read: it may be from before
        self._known[tenant] = (float("-inf") if overtaken else self._now() + FRESH, found)
        self._known.move_to_end(tenant)
        if len(self._known) > self._bound:
            self._known.popitem(last=False)
            self._evicted += 1
        return found


def _entry(name: str, version: int, removed: bool, entry: dict[str, Any]) -> CatalogEntry:
    return CatalogEntry(name, None if removed else entry, version)


def _settings(tenant: str, stored: dict[str, Any] | None) -> ModelSettings:
    try:
        return ModelSettings.model_validate(stored or {})
    except ValidationError:
        # What cannot be read might forbid something: nothing is allowed in its place.
        log.error("the model settings of tenant %s cannot be read", tenant)
        raise Unavailable("this tenant's model settings cannot be read") from None
