"""Tenants: their names, whether they are active, and what they are set to."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from domain.errors import NotFound, Unavailable
from domain.tenant import Caller, Tenant, TenantStatus
from domain.tenant_settings import TenantSettings
from storage.audit import record
from storage.idempotency import first_answer, remember
from storage.pages import Page, PageQuery
from storage.postgres import Connection, Pool, reading
from storage.retry import again

log = logging.getLogger("brain.tenants")

AT_ONCE = 500  # rows that one statement of a deletion removes
_COLUMNS = "id, name, status, settings, created_at, updated_at"


@dataclass(frozen=True, slots=True)
class NewTenant:
    """What is asked for. `id` is made once per request; `key` and `body_hash` as of `NewConversation`."""

    id: str
    name: str
    settings: TenantSettings
    key: str | None = None
    body_hash: bytes = b""


class PostgresTenants:
    """Every method may raise `Unavailable`, and `NotFound` for a tenant that is not there."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @again
    async def create(self, caller: Caller, new: NewTenant) -> tuple[Tenant, bool]:
        """The tenant, and whether it was created by an earlier request. Raises `IdempotencyMismatch`."""
        async with reading(self._pool, caller.tenant) as lent:
            if new.key is not None:
                first = await first_answer(lent, caller, new.key, new.body_hash)
                if first is not None:
                    return Tenant.model_validate(first), first["id"] != new.id
            await _as(lent, new.id)
            made = await _row(lent, new.id)
            if made is None:  # else an earlier try of this request was committed after all
                settings = _stored(new.settings)
                await lent.execute("SELECT brain.create_tenant($1, $2, $3)", new.id, new.name, settings)
                detail = {"name": new.name, "settings": settings}
                await record(lent, replace(caller, tenant=new.id), "tenant.create", new.id, detail)
                made = await _row(lent, new.id)
            tenant = _found(made)
            if new.key is not None:
                await _as(lent, caller.tenant)
                await remember(lent, caller, new.key, tenant.model_dump(mode="json"))
        return tenant, False

    @again
    async def one(self, tenant: str) -> Tenant:
        async with reading(self._pool, tenant) as lent:
            return _found(await _row(lent, tenant))

    @again
    async def page(self, query: PageQuery, status: TenantStatus | None = None) -> Page[Tenant]:
        """Tenants in the order of their ids, which is that of their creation."""
        async with reading(self._pool, "") as lent:
            rows = await lent.fetch(
                "SELECT id FROM brain.list_tenants($1, $2, $3, $4)",
                query.after,
                query.descending,
                status,
                query.limit + 1,
            )
            found = []
            for row in rows:
                await _as(lent, row["id"])
                if (read := await _row(lent, row["id"])) is not None:  # else it was deleted meanwhile
                    found.append(_tenant(read))
        return Page(found[: query.limit], len(rows) > query.limit)

    @again
    async def change(
        self,
        caller: Caller,
        name: str | None = None,
        status: TenantStatus | None = None,
        change: Callable[[TenantSettings], TenantSettings] | None = None,
    ) -> Tenant:
        """Change the tenant of the caller; what `change` raises leaves it as it is."""
        tenant = caller.tenant
        async with reading(self._pool, tenant) as lent:
            await lent.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"tenant {tenant}")
            before = _found(await _row(lent, tenant))
            settings = None if change is None else _stored(change(before.settings))
            await lent.execute("SELECT brain.change_tenant($1, $2, $3, $4)", tenant, name, status, settings)
            told = {"name": name, "status": status, "settings": settings}
            await record(
                lent, caller, "tenant.change", tenant, {key: one for key, one in told.items() if one is not None}
            )
            return _found(await _row(lent, tenant))

    @again
    async def settings(self, tenant: str) -> TenantSettings:
        """What the tenant is set to; of one that is not there, what tenants are by default."""
        async with reading(self._pool, tenant) as lent:
            row = await _row(lent, tenant)
        return TenantSettings() if row is None else _settings(tenant, row["settings"])


async def delete_tenant(pool: Pool, caller: Caller, tenant: str) -> None:
    """Delete the tenant and everything of its in Postgres, in bounded steps; its audit log stays, with a last entry.

    It is suspended first, so that nobody adds to it; a deletion that broke off goes on where it was. The event that
    takes its vectors away is told in the transaction in which it is gone. Raises `NotFound`, also for the operator's.
    """
    actor = replace(caller, tenant=tenant)
    async with reading(pool, tenant) as lent:
        row = await _row(lent, tenant)
        if row is None or "operator" in row["settings"]:
            raise NotFound("there is no such tenant, or it is the operator's own")
        await lent.execute("SELECT brain.change_tenant($1, NULL, 'suspended', NULL)", tenant)
    while await _conversations(pool, tenant):
        continue
    while await _cleared(pool, tenant):
        continue
    async with reading(pool, tenant) as lent:
        if not await lent.fetchval("SELECT brain.delete_tenant($1)", tenant):
            raise NotFound("there is no such tenant")
        await record(lent, actor, "tenant.delete", tenant, {"name": row["name"]})
    while await _cleared(pool, tenant):  # what was on its way meanwhile
        continue


@again
async def _conversations(pool: Pool, tenant: str) -> int:
    async with reading(pool, tenant) as lent:
        gone = await lent.execute(
            "DELETE FROM brain.conversations WHERE tenant_id = $1 AND id = ANY (ARRAY("
            "SELECT id FROM brain.conversations WHERE tenant_id = $1 ORDER BY id LIMIT $2))",
            tenant,
            AT_ONCE // 10,
        )
    return int(gone.split()[1])


@again
async def _cleared(pool: Pool, tenant: str) -> int:
    async with reading(pool, tenant) as lent:
        return int(await lent.fetchval("SELECT brain.clear_tenant($1, $2)", tenant, AT_ONCE))


async def _as(lent: Connection, tenant: str) -> None:
    await lent.execute("SELECT set_config('brain.tenant', $1, true)", tenant)


async def _row(lent: Connection, tenant: str) -> Any:
    return await lent.fetchrow(f"SELECT {_COLUMNS} FROM brain.tenants WHERE id = $1", tenant)


def _found(row: Any) -> Tenant:
    if row is None:
        raise NotFound("there is no such tenant")
    return _tenant(row)


def _tenant(row: Any) -> Tenant:
    return Tenant.model_validate({**dict(row), "settings": _readable(row["id"], row["settings"])})


def _stored(settings: TenantSettings) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude_unset=True)


def _readable(tenant: str, stored: dict[str, Any]) -> TenantSettings:
    """What of the settings can be read, for whoever looks at them and sets them right; nothing is allowed by it."""
    try:
        return _settings(tenant, stored)
    except Unavailable:
        return TenantSettings.model_validate({name: one for name, one in stored.items() if _reads(name, one)})


def _reads(name: str, value: Any) -> bool:
    try:
        TenantSettings.model_validate({name: value})
    except ValidationError:
        return False
    return True


def _settings(tenant: str, stored: dict[str, Any]) -> TenantSettings:
    try:
        return TenantSettings.model_validate({name: one for name, one in stored.items() if name != "operator"})
    except ValidationError:
        # What cannot be read might forbid something: nothing is taken for allowed in its place.
        log.error("the settings of tenant %s cannot be read", tenant)
        raise Unavailable("this tenant's settings cannot be read") from None
