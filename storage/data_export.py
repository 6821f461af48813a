"""All that is kept of a user or of a tenant, page by page, as it is stored: times in UTC, no hashes, nothing sealed.

Each page is a transaction of its own: what changes meanwhile is told as it is when its page is read.
"""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from domain.errors import NotFound
from domain.tenant import Caller
from storage.audit import record
from storage.postgres import Pool, reading
from storage.retry import again

PAGE = 200
Line = dict[str, Any]

_USER = (
    "SELECT 'user' AS object, u.id AS place, to_jsonb(u) - '{tenant_id,email_key,password_hash}'::text[] AS line"
    " FROM brain.users u WHERE u.tenant_id = $1 AND ($2::text IS NULL OR u.id = $2) AND u.id > $3"
)
_SESSIONS = (
    "SELECT 'session' AS object, s.id AS place, to_jsonb(s) - 'tenant_id' AS line"
    " FROM brain.sessions s WHERE s.tenant_id = $1 AND ($2::text IS NULL OR s.user_id = $2) AND s.id > $3"
)
_KEYS = (
    "SELECT 'api_key' AS object, k.id AS place, to_jsonb(k) - '{tenant_id,hash}'::text[] AS line"
    " FROM brain.api_keys k WHERE k.tenant_id = $1 AND ($2::text IS NULL OR k.user_id = $2) AND k.id > $3"
)
_CONVERSATIONS = (
    "SELECT 'conversation' AS object, c.id AS place,"
    " to_jsonb(c) - '{tenant_id,epoch,activation,host,window_from,next_seq}'::text[] AS line"
    " FROM brain.conversations c WHERE c.tenant_id = $1 AND ($2::text IS NULL OR c.user_id = $2) AND c.id > $3"
)
_OF_CONVERSATION = (
    "SELECT 'turn' AS object, t.id AS place,"
    " to_jsonb(t) - '{tenant_id,layout,reserved_usd}'::text[] AS line"
    " FROM brain.turns t WHERE t.tenant_id = $1 AND t.conversation_id = $2 AND t.id > $3",
    "SELECT 'message' AS object, m.seq::text AS place, to_jsonb(m) - 'tenant_id' AS line FROM brain.messages m"
    " WHERE m.tenant_id = $1 AND m.conversation_id = $2 AND m.seq > coalesce(nullif($3, ''), '0')::bigint",
    "SELECT 'feedback' AS object, f.message_id AS place, to_jsonb(f) - 'tenant_id' AS line"
    " FROM brain.feedback f JOIN brain.messages m ON m.tenant_id = f.tenant_id AND m.id = f.message_id"
    " WHERE f.tenant_id = $1 AND m.conversation_id = $2 AND f.message_id > $3",
    "SELECT 'tool_call' AS object, concat_ws('/', c.turn_id, lpad(c.round::text, 6, '0'), lpad(c.place::text, 6, '0'))"
    " AS place, to_jsonb(c) - 'tenant_id' AS line FROM brain.tool_calls c"
    " JOIN brain.turns t ON t.tenant_id = c.tenant_id AND t.id = c.turn_id WHERE c.tenant_id = $1"
    " AND t.conversation_id = $2"
    " AND concat_ws('/', c.turn_id, lpad(c.round::text, 6, '0'), lpad(c.place::text, 6, '0')) > $3",
    "SELECT 'summary' AS object, s.conversation_id AS place, to_jsonb(s) - 'tenant_id' AS line"
    " FROM brain.summaries s WHERE s.tenant_id = $1 AND s.conversation_id = $2 AND s.conversation_id > $3",
    "SELECT 'channel_binding' AS object, b.channel_id AS place, to_jsonb(b) - 'tenant_id' AS line"
    " FROM brain.channel_bindings b WHERE b.tenant_id = $1 AND b.conversation_id = $2 AND b.channel_id > $3",
)
_CONSENTS = (
    "SELECT 'tool_consent' AS object, c.server_id || '/' || c.user_id AS place, to_jsonb(c) - 'tenant_id' AS line"
    " FROM brain.tool_consents c WHERE c.tenant_id = $1 AND ($2::text IS NULL OR c.user_id = $2)"
    " AND c.server_id || '/' || c.user_id > $3"
)
_USAGE = (
    "SELECT 'usage' AS object, concat_ws('/', u.turn_id, u.attempt, u.call) AS place, to_jsonb(u) - 'tenant_id' AS line"
    " FROM brain.usage u WHERE u.tenant_id = $1 AND ($2::text IS NULL OR u.user_id = $2)"
    " AND (u.turn_id, u.attempt, u.call) > (split_part($3, '/', 1),"
    " coalesce(nullif(split_part($3, '/', 2), ''), '0')::int, coalesce(nullif(split_part($3, '/', 3), ''), '0')::int)"
)
_ORDER = {"usage": "u.turn_id, u.attempt, u.call", "message": "m.seq"}  # of the rest: `place`
_TENANT = "SELECT to_jsonb(t) FROM brain.tenants t WHERE t.id = $1"
_OF_TENANT = (
    "SELECT 'role' AS object, r.name AS place, to_jsonb(r) - 'tenant_id' AS line FROM brain.roles r"
    " WHERE r.tenant_id = $1 AND $2::text IS NULL AND r.name > $3",
    "SELECT 'model_settings' AS object, s.tenant_id AS place, to_jsonb(s) - '{tenant_id,version}'::text[] AS line"
    " FROM brain.model_settings s WHERE s.tenant_id = $1 AND $2::text IS NULL AND s.tenant_id > $3",
    "SELECT 'intent' AS object, i.id AS place, to_jsonb(i) - 'tenant_id' AS line FROM brain.intents i"
    " WHERE i.tenant_id = $1 AND $2::text IS NULL AND i.id > $3",
    "SELECT 'product' AS object, p.id AS place,"
    " to_jsonb(p) - '{tenant_id,words,price_up,price_down,title_key,in_stock}'::text[] AS line FROM brain.products p"
    " WHERE p.tenant_id = $1 AND $2::text IS NULL AND p.id > $3",
    "SELECT 'catalog.source' AS object, s.url AS place, to_jsonb(s) - '{tenant_id,sealed}'::text[] AS line"
    " FROM brain.catalogue_sources s WHERE s.tenant_id = $1 AND $2::text IS NULL AND s.url > $3",
    "SELECT 'tool_server' AS object, s.id AS place, to_jsonb(s) - '{tenant_id,sealed}'::text[] AS line"
    " FROM brain.tool_servers s WHERE s.tenant_id = $1 AND $2::text IS NULL AND s.id > $3",
    "SELECT 'webhook' AS object, w.id AS place,"
    " to_jsonb(w) - '{tenant_id,secret,secret_before,secret_before_until}'::text[] AS line FROM brain.webhooks w"
    " WHERE w.tenant_id = $1 AND $2::text IS NULL AND w.id > $3",
    "SELECT 'channel' AS object, c.id AS place,"
    " to_jsonb(c) - '{tenant_id,secret,secret_before,secret_before_until}'::text[] AS line FROM brain.channels c"
    " WHERE c.tenant_id = $1 AND $2::text IS NULL AND c.id > $3",
    "SELECT 'audit' AS object, a.id AS place, to_jsonb(a) - 'tenant_id' AS line FROM brain.audit a"
    " WHERE a.tenant_id = $1 AND $2::text IS NULL AND a.id > $3",
)
_NAMED = """
SELECT EXISTS (SELECT FROM brain.users WHERE tenant_id = $1 AND id = $2)
    OR EXISTS (SELECT FROM brain.conversations WHERE tenant_id = $1 AND user_id = $2)
    OR EXISTS (SELECT FROM brain.usage WHERE tenant_id = $1 AND user_id = $2)
"""


class PostgresDataExport:
    """Raises `Unavailable` after three tries a page."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @again
    async def check_user(self, tenant: str, user: str) -> None:
        """Raises `NotFound` where nothing of this user is kept."""
        async with reading(self._pool, tenant) as lent:
            if not await lent.fetchval(_NAMED, tenant, user):
                raise NotFound("there is no such user")

    @again
    async def told(self, who: Caller, action: str, subject: str | None) -> None:
        """For the audit log of `who.tenant`."""
        async with reading(self._pool, who.tenant) as lent:
            await record(lent, who, action, subject)

    @again
    async def tenant(self, tenant: str) -> Line:
        """Raises `NotFound`."""
        async with reading(self._pool, tenant) as lent:
            row: Line | None = await lent.fetchval(_TENANT, tenant)
        if row is None:
            raise NotFound("there is no such tenant")
        return {"object": "tenant", **row}

    async def lines(self, tenant: str, user: str | None) -> AsyncIterator[list[Line]]:
        """Account, conversations each with its turns, messages, feedback and summary, then usage; of `user` None all
        users', and what the tenant has set."""
        for sql in (_USER, _SESSIONS, _KEYS, _CONSENTS, *(_OF_TENANT if user is None else ())):
            async for page in self._pages(sql, tenant, user):
                yield page
        async for page in self._pages(_CONVERSATIONS, tenant, user):
            for conversation in page:
                yield [conversation]
                for sql in _OF_CONVERSATION:
                    async for part in self._pages(sql, tenant, conversation["id"]):
                        yield part
        async for page in self._pages(_USAGE, tenant, user):
            yield page

    async def _pages(self, sql: str, tenant: str, whose: str | None) -> AsyncIterator[list[Line]]:
        after = ""
        while rows := await self._page(sql, tenant, whose, after):
            yield [{"object": row["object"], **row["line"]} for row in rows]
            after = rows[-1]["place"]

    @again
    async def _page(self, sql: str, tenant: str, whose: str | None, after: str) -> list[asyncpg.Record]:
        async with reading(self._pool, tenant) as lent:
            await lent.execute("SET LOCAL TimeZone = 'UTC'")
            order = _ORDER.get(sql.split("'")[1], "place")
            rows: list[asyncpg.Record] = await lent.fetch(f"{sql} ORDER BY {order} LIMIT {PAGE}", tenant, whose, after)
        return rows
