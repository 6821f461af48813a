"""Messages as an indexer reads them (`domain.indexing.StoredTexts`)."""

from collections.abc import Sequence

from domain.indexing import StoredText
from storage.postgres import Pool, asking, reading

_TEXTS = """
SELECT m.id, m.conversation_id, m.content, m.role, extract(epoch FROM m.created_at)::double precision AS at, c.user_id,
        t.intent->>'name' AS intent
    FROM brain.messages m
    JOIN brain.conversations c ON c.tenant_id = m.tenant_id AND c.id = m.conversation_id
    LEFT JOIN brain.turns t ON t.tenant_id = m.tenant_id AND t.id = m.turn_id
    WHERE m.tenant_id = $1 AND m.id = ANY ($2)
"""
_OF_TURNS = """
SELECT m.id FROM brain.turns t JOIN brain.messages m
    ON m.tenant_id = t.tenant_id AND m.conversation_id = t.conversation_id AND m.seq = t.user_seq
    WHERE t.tenant_id = $1 AND t.id = ANY ($2)
UNION SELECT m.id FROM brain.messages m WHERE m.tenant_id = $1 AND m.turn_id = ANY ($2) AND m.role = 'assistant'
"""

_COUNT = "SELECT brain.count_messages_after($1, $2)"
COUNTING = 300.0  # seconds, of many millions of messages


class PostgresStoredTexts:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(self, tenant: str, ids: Sequence[str]) -> dict[str, StoredText]:
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch(_TEXTS, tenant, list(ids))
        return {
            row["id"]: StoredText(
                row["id"],
                row["conversation_id"],
                row["content"],
                row["role"],
                row["at"],
                row["user_id"],
                row["intent"],
            )
            for row in rows
        }

    async def of_turns(self, tenant: str, turns: Sequence[str]) -> list[str]:
        async with reading(self._pool, tenant) as lent:
            return [row["id"] for row in await lent.fetch(_OF_TURNS, tenant, list(turns))]

    async def of_conversation(self, tenant: str, conversation: str) -> list[str] | None:
        async with reading(self._pool, tenant) as lent:
            if not await lent.fetchval(
                "SELECT EXISTS (SELECT FROM brain.conversations WHERE tenant_id = $1 AND id = $2)", tenant, conversation
            ):
                return None
            rows = await lent.fetch(
                "SELECT id FROM brain.messages WHERE tenant_id = $1 AND conversation_id = $2 ORDER BY seq",
                tenant,
                conversation,
            )
        return [row["id"] for row in rows]

    async def after(self, tenant: str, message: str, limit: int) -> list[tuple[str, str]]:
        async with asking(self._pool) as lent:
            rows = await lent.fetch("SELECT * FROM brain.messages_after($1, $2, $3)", tenant, message, limit)
        return [(row["tenant_id"], row["id"]) for row in rows]

    async def count_after(self, tenant: str, message: str) -> int:
        async with asking(self._pool) as lent:
            return int(await lent.fetchval(_COUNT, tenant, message, timeout=COUNTING))
