"""Servers of tools that tenants have registered, and users' consent to them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg
from yarl import URL

from domain.errors import NameTaken, NotFound
from domain.tenant import Caller
from domain.tools import Listing, NewServer, Offering, ToolServer
from storage.audit import record
from storage.idempotency import first_answer, remember
from storage.pages import Page, PageQuery, page_of
from storage.postgres import Pool, reading
from storage.retry import again

_COLUMNS = "id, name, url, auth, allow, idempotent, consent, roles, tools, error, listed_at, created_at, updated_at"
_ROLE = """
SELECT coalesce(k.role, u.role, c.role) FROM brain.turns t
    LEFT JOIN brain.api_keys k ON k.tenant_id = t.tenant_id AND k.id = t.caller
    LEFT JOIN brain.users u ON u.tenant_id = t.tenant_id AND u.id = t.caller
    LEFT JOIN brain.clients c ON c.tenant_id = t.tenant_id AND c.id = t.caller
    WHERE t.tenant_id = $1 AND t.id = $2
"""
NO_CONSENT = "the user has not consented to it"
NO_ROLE = "the caller's role may not use it"


def seal_name(server_id: str, url: str) -> str:
    """What a server's secret is bound to: it opens for no other server, and for no other origin."""
    return f"tool-server:{server_id}:{URL(url).origin()}"


def bare(url: str) -> str:
    """Without the query, which may hold a token."""
    return str(URL(url).with_query(None))


class PostgresToolServers:
    """Every method may raise `Unavailable`; `NotFound` where the tenant has no such server."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @again
    async def create(self, caller: Caller, new: NewServer) -> tuple[ToolServer, bool]:
        """The server, and whether an earlier request made it. Raises `NameTaken`, `IdempotencyMismatch`."""
        async with reading(self._pool, caller.tenant) as lent:
            if new.key is not None:
                first = await first_answer(lent, caller, new.key, new.body_hash)
                if first is not None:
                    return ToolServer.model_validate(first), first["id"] != new.id
            row = await lent.fetchrow(
                "INSERT INTO brain.tool_servers"
                " (tenant_id, id, name, url, auth, sealed, allow, idempotent, consent, roles)"
                f" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING RETURNING {_COLUMNS}",
                caller.tenant,
                new.id,
                new.name,
                new.url,
                new.auth,
                new.sealed,
                list(new.allow),
                list(new.idempotent),
                new.consent,
                None if new.roles is None else list(new.roles),
            )
            if row is None:
                row = await lent.fetchrow(
                    f"SELECT {_COLUMNS} FROM brain.tool_servers WHERE tenant_id = $1 AND id = $2", caller.tenant, new.id
                )
                if row is None:
                    raise NameTaken(f"there is a server of tools named {new.name!r} already")
                return _server(row), False  # an earlier try was committed after all
            made = _server(row)
            await record(lent, caller, "tool_server.create", new.id, {"name": new.name, "url": bare(new.url)})
            if new.key is not None:
                await remember(lent, caller, new.key, made.model_dump(mode="json"))
        return made, False

    @again
    async def page(self, tenant: str, query: PageQuery) -> Page[ToolServer]:
        compare, direction = ("<", "DESC") if query.descending else (">", "ASC")
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch(
                f"SELECT {_COLUMNS} FROM brain.tool_servers WHERE tenant_id = $1"
                f" AND ($2::text IS NULL OR id {compare} $2) ORDER BY id {direction} LIMIT $3",
                tenant,
                query.after,
                query.limit + 1,
            )
        return page_of([_server(row) for row in rows], query)

    @again
    async def all(self, tenant: str) -> list[ToolServer]:
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch(
                f"SELECT {_COLUMNS} FROM brain.tool_servers WHERE tenant_id = $1 ORDER BY name", tenant
            )
        return [_server(row) for row in rows]

    @again
    async def one(self, tenant: str, server_id: str) -> ToolServer:
        return (await self.with_secret(tenant, server_id))[0]

    @again
    async def with_secret(self, tenant: str, server_id: str) -> tuple[ToolServer, dict[str, Any] | None]:
        """The server and its secret, sealed."""
        async with reading(self._pool, tenant) as lent:
            row = await lent.fetchrow(
                f"SELECT {_COLUMNS}, sealed FROM brain.tool_servers WHERE tenant_id = $1 AND id = $2", tenant, server_id
            )
        if row is None:
            raise NotFound("there is no such server of tools")
        return _server(row), row["sealed"]

    @again
    async def change(self, caller: Caller, server_id: str, fields: Mapping[str, Any]) -> ToolServer:
        """Set these columns. Raises `NameTaken`."""
        names = [name for name in fields if name in _CHANGED]
        places = "".join(f", {name} = ${place}" for place, name in enumerate(names, 3))
        async with reading(self._pool, caller.tenant) as lent:
            try:
                row = await lent.fetchrow(
                    f"UPDATE brain.tool_servers SET updated_at = clock_timestamp(){places}"
                    f" WHERE tenant_id = $1 AND id = $2 RETURNING {_COLUMNS}",
                    caller.tenant,
                    server_id,
                    *(fields[name] for name in names),
                )
            except asyncpg.UniqueViolationError:
                raise NameTaken("there is a server of tools of this name already") from None
            if row is None:
                raise NotFound("there is no such server of tools")
            told = {name: bare(fields[name]) if name == "url" else fields[name] for name in names if name != "sealed"}
            await record(lent, caller, "tool_server.update", server_id, told)
        return _server(row)

    @again
    async def listed(self, tenant: str, server_id: str, listing: Listing) -> ToolServer:
        """Keep what a server lists. Where it lists nothing now, what it listed before stays."""
        tools = None if listing.error else [tool.model_dump(mode="json") for tool in listing.tools]
        async with reading(self._pool, tenant) as lent:
            row = await lent.fetchrow(
                "UPDATE brain.tool_servers SET tools = coalesce($3::jsonb, tools), error = $4,"
                " listed_at = CASE WHEN $4::text IS NULL THEN clock_timestamp() ELSE listed_at END"
                f" WHERE tenant_id = $1 AND id = $2 RETURNING {_COLUMNS}",
                tenant,
                server_id,
                tools,
                listing.error,
            )
        if row is None:
            raise NotFound("there is no such server of tools")
        return _server(row)

    @again
    async def delete(self, caller: Caller, server_id: str) -> None:
        async with reading(self._pool, caller.tenant) as lent:
            gone = await lent.fetchval(
                "DELETE FROM brain.tool_servers WHERE tenant_id = $1 AND id = $2 RETURNING name",
                caller.tenant,
                server_id,
            )
            if gone is None:
                raise NotFound("there is no such server of tools")
            await record(lent, caller, "tool_server.delete", server_id, {"name": gone})

    @again
    async def consents(self, tenant: str, user: str) -> list[tuple[ToolServer, datetime | None]]:
        """The servers that ask users, by name, and when this one has consented."""
        columns = ", ".join(f"s.{name}" for name in _COLUMNS.split(", "))
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch(
                f"SELECT {columns}, c.given_at FROM brain.tool_servers s LEFT JOIN brain.tool_consents c"
                " ON c.tenant_id = s.tenant_id AND c.server_id = s.id AND c.user_id = $2"
                " WHERE s.tenant_id = $1 AND s.consent = 'user' ORDER BY s.name",
                tenant,
                user,
            )
        return [(_server(row), row["given_at"]) for row in rows]

    @again
    async def consent(self, caller: Caller, user: str, server_id: str) -> None:
        async with reading(self._pool, caller.tenant) as lent:
            if not await lent.fetchval(
                "SELECT EXISTS (SELECT FROM brain.tool_servers WHERE tenant_id = $1 AND id = $2)",
                caller.tenant,
                server_id,
            ):
                raise NotFound("there is no such server of tools")
            await lent.execute(
                "INSERT INTO brain.tool_consents (tenant_id, user_id, server_id) VALUES ($1, $2, $3)"
                " ON CONFLICT DO NOTHING",
                caller.tenant,
                user,
                server_id,
            )
            await record(lent, caller, "tool_consent.give", server_id, {"user": user})

    @again
    async def withdraw(self, caller: Caller, user: str, server_id: str) -> None:
        """A consent that was never given is withdrawn all the same."""
        async with reading(self._pool, caller.tenant) as lent:
            await lent.execute(
                "DELETE FROM brain.tool_consents WHERE tenant_id = $1 AND user_id = $2 AND server_id = $3",
                caller.tenant,
                user,
                server_id,
            )
            await record(lent, caller, "tool_consent.withdraw", server_id, {"user": user})

    @again
    async def offerings(
        self, tenant: str, servers: Sequence[ToolServer], user: str | None, turn_id: str
    ) -> list[Offering]:
        """Which of these servers a turn may use."""
        if not any(server.consent == "user" or server.roles is not None for server in servers):
            return [Offering(server) for server in servers]
        async with reading(self._pool, tenant) as lent:
            given = await lent.fetch(
                "SELECT server_id FROM brain.tool_consents WHERE tenant_id = $1 AND user_id = $2", tenant, user
            )
            role = await lent.fetchval(_ROLE, tenant, turn_id)
        consented = {row["server_id"] for row in given}
        found = []
        for server in servers:
            why = NO_CONSENT if server.consent == "user" and server.id not in consented else None
            if server.roles is not None and role not in server.roles:
                why = NO_ROLE
            found.append(Offering(server, why))
        return found


_CHANGED = ("name", "url", "auth", "sealed", "allow", "idempotent", "consent", "roles", "tools", "error")


def _server(row: asyncpg.Record) -> ToolServer:
    return ToolServer.model_validate({name: row[name] for name in _COLUMNS.split(", ")})
