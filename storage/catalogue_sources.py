"""Which service a tenant's products come from, where they are not kept here."""

from typing import Any

import asyncpg
from yarl import URL

from domain.catalogue_sources import CatalogueSource, SourceAuth
from domain.tenant import Caller
from storage.audit import record
from storage.postgres import Connection, Pool, reading
from storage.retry import again

CHANGED = "catalogue"  # the kind of change that replicas hear of
_COLUMNS = "url, auth, header, timeout_ms, version::text AS version, updated_at"
_PUT = f"""
INSERT INTO brain.catalogue_sources (tenant_id, url, auth, header, sealed, timeout_ms)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (tenant_id) DO UPDATE SET url = excluded.url, auth = excluded.auth, header = excluded.header,
        sealed = excluded.sealed, timeout_ms = excluded.timeout_ms, version = gen_random_uuid(),
        updated_at = clock_timestamp()
    RETURNING {_COLUMNS}
"""


def seal_name(tenant: str, url: str) -> str:
    """What a secret is bound to: it opens for no other tenant, and for no other origin."""
    return f"catalogue-source:{tenant}:{URL(url).origin()}"


class PostgresCatalogueSources:
    """Every method may raise `Unavailable`, and may be repeated. Without a source the built-in catalogue counts."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @again
    async def with_secret(self, tenant: str) -> tuple[CatalogueSource, dict[str, Any] | None] | None:
        """The source and its secret, sealed; None where products are kept here."""
        async with reading(self._pool, tenant) as lent:
            row = await lent.fetchrow(
                f"SELECT {_COLUMNS}, sealed FROM brain.catalogue_sources WHERE tenant_id = $1", tenant
            )
        return None if row is None else (_source(row), row["sealed"])

    async def source(self, tenant: str) -> CatalogueSource | None:
        found = await self.with_secret(tenant)
        return None if found is None else found[0]

    @again
    async def put(
        self,
        caller: Caller,
        url: str,
        auth: SourceAuth,
        header: str | None,
        sealed: dict[str, str] | None,
        timeout_ms: int,
    ) -> CatalogueSource:
        """Replaces the one before, with its secret."""
        async with reading(self._pool, caller.tenant) as lent:
            row = await lent.fetchrow(_PUT, caller.tenant, url, auth, header, sealed, timeout_ms)
            detail = {"url": url, "auth": auth, "timeout_ms": timeout_ms}
            await _told(lent, caller, "catalog.source.set", detail)
        assert row is not None
        return _source(row)

    @again
    async def delete(self, caller: Caller) -> None:
        """The built-in catalogue counts again; also where it counted already."""
        async with reading(self._pool, caller.tenant) as lent:
            url = await lent.fetchval(
                "DELETE FROM brain.catalogue_sources WHERE tenant_id = $1 RETURNING url", caller.tenant
            )
            if url is not None:
                await _told(lent, caller, "catalog.source.removed", {"url": url})


async def _told(lent: Connection, caller: Caller, action: str, detail: dict[str, Any]) -> None:
    await lent.execute("SELECT brain.access_changed($1, $2, $1)", caller.tenant, CHANGED)
    await record(lent, caller, action, None, detail)


def _source(row: asyncpg.Record) -> CatalogueSource:
    return CatalogueSource(row["url"], row["auth"], row["header"], row["timeout_ms"], row["version"], row["updated_at"])
