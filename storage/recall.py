"""What a search answers with: rows of Postgres, of the tenant alone, whatever an index says.

A vector that should not be there finds nothing: a message is read here under row-level security, and only as far as it
is still what was asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from domain.context import Exchange
from domain.conversation import Conversation, ConversationKey
from domain.errors import NotFound
from domain.message import Message, Role
from storage import rows
from storage.postgres import Pool, reading
from storage.retry import again


@dataclass(frozen=True, slots=True)
class Filters:
    """Which messages are asked for: each condition that is given holds. `since` ≤ created < `until`."""

    user: str | None = None
    intent: str | None = None
    role: Role | None = None
    since: datetime | None = None
    until: datetime | None = None


_ALLOWED = """
($3::text IS NULL OR EXISTS (SELECT FROM brain.conversations c WHERE c.tenant_id = m.tenant_id
    AND c.id = m.conversation_id AND c.user_id = $3))
AND ($4::text IS NULL OR t.intent->>'name' = $4) AND ($5::text IS NULL OR m.role = $5)
AND ($6::timestamptz IS NULL OR m.created_at >= $6) AND ($7::timestamptz IS NULL OR m.created_at < $7)
"""
_EXCHANGES = """
SELECT q.conversation_id, q.id, q.content AS question, a.content AS answer
    FROM brain.messages q
    JOIN brain.conversations c ON c.tenant_id = q.tenant_id AND c.id = q.conversation_id
    CROSS JOIN LATERAL (SELECT content FROM brain.messages m WHERE m.tenant_id = q.tenant_id
        AND m.conversation_id = q.conversation_id AND m.seq > q.seq AND m.turn_order = q.seq AND m.role = 'assistant'
        AND m.status = 'completed' AND m.superseded_by IS NULL ORDER BY m.seq LIMIT 1) a
    WHERE q.tenant_id = $1 AND q.id = ANY ($2) AND q.role = 'user' AND c.user_id = $3 AND q.conversation_id <> $4
"""


class PostgresRecall:
    """Every method raises `Unavailable` after three tries."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @again
    async def by_words(self, tenant: str, query: str, limit: int, filters: Filters) -> list[str]:
        """The ids of messages that hold the words of `query`, the best first. Words are joined by and; quotes, `or` and
        a minus before a word mean what they mean in web searches."""
        async with reading(self._pool, tenant) as lent:
            found = await lent.fetch(
                "SELECT id FROM brain.search_words($1, $2, $3, $4, $5, $6, $7)",
                query,
                limit,
                filters.user,
                filters.intent,
                filters.role,
                filters.since,
                filters.until,
            )
        return [row["id"] for row in found]

    @again
    async def messages(self, tenant: str, ids: Sequence[str], filters: Filters) -> dict[str, Message]:
        """Those of them that are there and allowed, by id."""
        async with reading(self._pool, tenant) as lent:
            found = await lent.fetch(
                f"SELECT {rows.MESSAGE} FROM {rows.MESSAGES} WHERE m.tenant_id = $1 AND m.id = ANY ($2) AND {_ALLOWED}",
                tenant,
                list(ids),
                filters.user,
                filters.intent,
                filters.role,
                filters.since,
                filters.until,
            )
        return {row["id"]: rows.message(row) for row in found}

    @again
    async def message(self, tenant: str, message_id: str) -> Message:
        """Raises `NotFound`."""
        found = await self.messages(tenant, [message_id], Filters())
        if message_id not in found:
            raise NotFound("there is no such message")
        return found[message_id]

    @again
    async def last_said(self, tenant: str, conversation_id: str, limit: int) -> list[Message]:
        """The last messages of the user in a conversation, the newest first. Raises `NotFound`."""
        async with reading(self._pool, tenant) as lent:
            if not await lent.fetchval(
                "SELECT EXISTS (SELECT FROM brain.conversations WHERE tenant_id = $1 AND id = $2)",
                tenant,
                conversation_id,
            ):
                raise NotFound("there is no such conversation")
            found = await lent.fetch(
                f"SELECT {rows.MESSAGE} FROM {rows.MESSAGES} WHERE m.tenant_id = $1 AND m.conversation_id = $2"
                " AND m.role = 'user' ORDER BY m.seq DESC LIMIT $3",
                tenant,
                conversation_id,
                limit,
            )
        return [rows.message(row) for row in found]

    @again
    async def conversations(self, tenant: str, ids: Sequence[str], user: str | None) -> dict[str, Conversation]:
        async with reading(self._pool, tenant) as lent:
            found = await lent.fetch(
                f"SELECT {rows.CONVERSATION} FROM brain.conversations WHERE tenant_id = $1 AND id = ANY ($2)"
                " AND ($3::text IS NULL OR user_id = $3)",
                tenant,
                list(ids),
                user,
            )
        return {row["id"]: rows.conversation(row) for row in found}

    @again
    async def exchanges(self, key: ConversationKey, user: str, ids: Sequence[str]) -> dict[str, Exchange]:
        """Questions of this user in other conversations that were answered, by the question's id."""
        async with reading(self._pool, key.tenant) as lent:
            found: list[Any] = await lent.fetch(_EXCHANGES, key.tenant, list(ids), user, key.conversation)
        return {row["id"]: Exchange(row["question"], row["answer"], row["conversation_id"], 0.0) for row in found}
