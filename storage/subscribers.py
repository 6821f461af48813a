"""Webhooks and channels, as they are set up: their secrets sealed, and what it means to disable one."""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import asyncpg

from domain.errors import NotFound, QuotaExceeded
from domain.subscribers import ChannelEntry, Subscriber, Webhook
from domain.tenant import Caller
from storage.audit import record
from storage.idempotency import first_answer, remember
from storage.pages import Page, PageQuery, page_of
from storage.postgres import Connection, Pool, reading
from storage.retry import again
from storage.sealing import MasterKeys

S = TypeVar("S", bound=Subscriber)
MOST = 100  # of a tenant: each event is written once for each that hears it
OVERLAP = timedelta(hours=24)  # for which a secret that was replaced signs, too
SERVICE = "service"  # the actor of what the service does by itself


@dataclass(frozen=True, slots=True)
class Table(Generic[S]):
    """`columns`: those that the tenant sets."""

    name: str
    what: str
    model: type[S]
    columns: tuple[str, ...]

    @property
    def shown(self) -> str:
        return ", ".join((*self.columns, "id, status, disabled_reason, disabled_at, created_at, updated_at"))


WEBHOOKS = Table("webhooks", "webhook", Webhook, ("url", "events", "description", "include_content"))
CHANNELS = Table("channels", "channel", ChannelEntry, ("kind", "name", "settings"))


@dataclass(frozen=True, slots=True)
class New:
    """What is asked for: `values` of the tenant's columns. `id` is made once per request; `key` and `body_hash` as
    elsewhere."""

    id: str
    values: Mapping[str, Any]
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    key: str | None = None
    body_hash: bytes = b""


class PostgresSubscribers(Generic[S]):
    """Those of one table. Every method may raise `Unavailable`; `NotFound` where the tenant has no such thing."""

    def __init__(self, pool: Pool, keys: MasterKeys, table: Table[S]) -> None:
        self._pool, self._keys, self._table = pool, keys, table

    @again
    async def create(self, caller: Caller, new: New) -> tuple[S, str, bool]:
        """It, its secret as `whsec_…`, and whether an earlier request made it. Raises `IdempotencyMismatch`,
        `QuotaExceeded`."""
        table, tenant = self._table, caller.tenant
        async with reading(self._pool, tenant) as lent:
            if new.key is not None:
                first = await first_answer(lent, caller, new.key, new.body_hash)
                if first is not None:
                    row = await self._row(lent, tenant, first["id"])
                    return self._made(row), shown_secret(opened(self._keys, table.what, row)[0]), first["id"] != new.id
            await self._check_room(lent, tenant)
            values = [new.values[name] for name in table.columns]
            places = ", ".join(f"${n}" for n in range(1, len(values) + 4))
            await lent.execute(
                f"INSERT INTO brain.{table.name} (tenant_id, id, secret, {', '.join(table.columns)})"
                f" VALUES ({places}) ON CONFLICT DO NOTHING",
                tenant,
                new.id,
                self._keys.seal(new.secret, sealed_as(table.what, new.id)),
                *values,
            )
            row = await self._row(lent, tenant, new.id)
            await record(lent, caller, f"{table.what}.create", new.id, _told(new.values))
            if new.key is not None:
                await remember(lent, caller, new.key, {"id": new.id})
        return self._made(row), shown_secret(opened(self._keys, table.what, row)[0]), False

    @again
    async def page(self, tenant: str, query: PageQuery) -> Page[S]:
        compare, direction = ("<", "DESC") if query.descending else (">", "ASC")
        args: list[Any] = [tenant, query.limit + 1, *([query.after] if query.after is not None else [])]
        beyond = f" AND id {compare} $3" if query.after is not None else ""
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch(
                f"SELECT {self._table.shown} FROM brain.{self._table.name} WHERE tenant_id = $1{beyond}"
                f" ORDER BY id {direction} LIMIT $2",
                *args,
            )
        return page_of([self._made(row) for row in rows], query)

    @again
    async def one(self, tenant: str, id: str) -> S:
        async with reading(self._pool, tenant) as lent:
            return self._made(await self._row(lent, tenant, id))

    @again
    async def change(self, caller: Caller, id: str, values: Mapping[str, Any]) -> S:
        """Set these of the tenant's columns."""
        names = [name for name in self._table.columns if name in values]
        sets = "".join(f", {name} = ${n}" for n, name in enumerate(names, 3))
        async with reading(self._pool, caller.tenant) as lent:
            await lent.execute(
                f"UPDATE brain.{self._table.name} SET updated_at = clock_timestamp(){sets}"
                " WHERE tenant_id = $1 AND id = $2",
                caller.tenant,
                id,
                *(values[name] for name in names),
            )
            row = await self._row(lent, caller.tenant, id)
            await record(lent, caller, f"{self._table.what}.change", id, _told(values))
        return self._made(row)

    @again
    async def delete(self, caller: Caller, id: str) -> None:
        """With all that waits for it, and its log."""
        async with reading(self._pool, caller.tenant) as lent:
            await self._row(lent, caller.tenant, id, lock=True)
            await lent.execute(
                f"DELETE FROM brain.{self._table.name} WHERE tenant_id = $1 AND id = $2", caller.tenant, id
            )
            await record(lent, caller, f"{self._table.what}.delete", id)

    @again
    async def rotate(
        self, caller: Caller, id: str, fresh: bytes, key: str | None = None, overlap: timedelta = OVERLAP
    ) -> tuple[S, str, bool]:
        """Put `fresh` in the place of its secret, which signs too for a while. A second try changes nothing, nor does a
        request of the same idempotency key: it is shown the present secret."""
        what = self._table.what
        async with reading(self._pool, caller.tenant) as lent:
            row = await self._row(lent, caller.tenant, id, lock=True)
            if key is not None:
                if await first_answer(lent, caller, key, f"{what}s/{id}/rotate-secret".encode()) is not None:
                    return self._made(row), shown_secret(opened(self._keys, what, row)[0]), True
                await remember(lent, caller, key, {"id": id})
            if opened(self._keys, what, row)[0] != fresh:
                await lent.execute(
                    f"UPDATE brain.{self._table.name} SET secret_before = secret, secret = $3, updated_at ="
                    " clock_timestamp(), secret_before_until = clock_timestamp() + $4 WHERE tenant_id = $1 AND id = $2",
                    caller.tenant,
                    id,
                    self._keys.seal(fresh, sealed_as(what, id)),
                    overlap,
                )
                await record(lent, caller, f"{what}.rotate_secret", id)
                row = await self._row(lent, caller.tenant, id)
        return self._made(row), shown_secret(fresh), False

    @again
    async def enable(self, caller: Caller, id: str) -> S:
        async with reading(self._pool, caller.tenant) as lent:
            done = await lent.fetchval(
                f"UPDATE brain.{self._table.name} SET status = 'active', disabled_reason = NULL, disabled_at = NULL,"
                " updated_at = clock_timestamp() WHERE tenant_id = $1 AND id = $2 AND status <> 'active' RETURNING id",
                caller.tenant,
                id,
            )
            if done is not None:
                await record(lent, caller, f"{self._table.what}.enable", id)
            return self._made(await self._row(lent, caller.tenant, id))

    @again
    async def disable(self, caller: Caller, id: str) -> S:
        """By the tenant's wish. What waits for it is given up."""
        async with reading(self._pool, caller.tenant) as lent:
            await disable(lent, caller, self._table, id, None)
            return self._made(await self._row(lent, caller.tenant, id))

    async def _check_room(self, lent: Connection, tenant: str) -> None:
        count = await lent.fetchval(f"SELECT count(*) FROM brain.{self._table.name} WHERE tenant_id = $1", tenant)
        if count >= MOST:
            raise QuotaExceeded(f"a tenant may have {MOST} {self._table.what}s")

    def _made(self, row: asyncpg.Record) -> S:
        return self._table.model.model_validate({name: row[name] for name in self._table.shown.split(", ")})

    async def _row(self, lent: Connection, tenant: str, id: str, lock: bool = False) -> asyncpg.Record:
        row = await lent.fetchrow(
            f"SELECT * FROM brain.{self._table.name} WHERE tenant_id = $1 AND id = $2{' FOR UPDATE' if lock else ''}",
            tenant,
            id,
        )
        if row is None:
            raise NotFound(f"there is no such {self._table.what}")
        return row


async def disable(lent: Connection, caller: Caller, table: Table[Any], id: str, reason: str | None) -> bool:
    """Send it nothing more, and give up what waits for it; an event and the audit log tell it. False where it was
    disabled already, or is gone."""
    done = await lent.fetchval(
        f"UPDATE brain.{table.name} SET status = 'disabled', disabled_reason = $3, disabled_at = clock_timestamp(),"
        " updated_at = clock_timestamp() WHERE tenant_id = $1 AND id = $2 AND status = 'active' RETURNING id",
        caller.tenant,
        id,
        reason,
    )
    if done is None:
        return False
    await lent.execute(
        "UPDATE brain.delivery_lanes SET due = NULL WHERE tenant_id = $1 AND subscriber = $2", caller.tenant, id
    )
    await lent.execute(
        "UPDATE brain.deliveries SET status = 'failed', ended_at = clock_timestamp(), next_at = NULL,"
        f" error = coalesce(error, 'the {table.what} is disabled')"
        " WHERE tenant_id = $1 AND subscriber = $2 AND status = 'waiting'",
        caller.tenant,
        id,
    )
    await lent.execute(
        "INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES ($1, $2, $3)",
        caller.tenant,
        f"{table.what}.disabled",
        {f"{table.what}_id": id, "reason": reason},
    )
    await record(lent, caller, f"{table.what}.disable", id, {"reason": reason})
    return True


def by_the_service(tenant: str) -> Caller:
    """Who acts where nobody asked."""
    return Caller(tenant, SERVICE, SERVICE)


def sealed_as(what: str, id: str) -> str:
    """The name that a secret is bound to."""
    return f"{what}:{id}"


def opened(keys: MasterKeys, what: str, row: asyncpg.Record) -> tuple[bytes, ...]:
    """The secret, and the one before it while that counts. Raises `CannotOpen`."""
    name = sealed_as(what, row["id"])
    found = [keys.open(row["secret"], name)]
    if row["secret_before"] is not None and row["secret_before_until"] > datetime.now(UTC):
        found.append(keys.open(row["secret_before"], name))
    return tuple(found)


def shown_secret(secret: bytes) -> str:
    """As Standard Webhooks writes secrets."""
    return "whsec_" + base64.b64encode(secret).decode()


def _told(values: Mapping[str, Any]) -> dict[str, Any]:
    """For the audit log: a URL may hold a token."""
    return {name: value for name, value in values.items() if name in ("events", "kind", "name", "include_content")}
