"""Conversations that their tenants keep no longer: found a few at a time, and deleted as by hand."""

from domain.conversation import ConversationKey
from storage.postgres import Pool, asking, reading
from storage.retry import again

_DELETE = """
WITH gone AS (
    DELETE FROM brain.conversations c WHERE c.tenant_id = $1 AND c.id = $2
        AND c.updated_at < clock_timestamp() - (SELECT make_interval(days => (t.settings->>'retention_days')::integer)
            FROM brain.tenants t WHERE t.id = $1)
        AND NOT EXISTS (SELECT FROM brain.turns u WHERE u.tenant_id = $1 AND u.conversation_id = $2
            AND u.status IN ('queued', 'running'))
    RETURNING c.id
)
INSERT INTO brain.outbox (tenant_id, topic, payload)
    SELECT $1, 'conversation.deleted', jsonb_build_object('conversation_id', gone.id) FROM gone RETURNING id
"""


@again
async def expired_conversations(pool: Pool, limit: int) -> list[ConversationKey]:
    """Those in which nothing has happened for longer than their tenant's `retention_days`. Raises `Unavailable`."""
    async with asking(pool) as lent:
        rows = await lent.fetch("SELECT * FROM brain.expired_conversations($1)", limit)
    return [ConversationKey(row["tenant_id"], row["conversation_id"]) for row in rows]


@again
async def delete_expired(pool: Pool, key: ConversationKey) -> bool:
    """Delete the conversation and tell it in the outbox, so that its vectors go; False where it is not past its time
    (any more), or a turn of it is unfinished. Whoever has it in memory hears of it at his next write: it is gone."""
    async with reading(pool, key.tenant) as lent:
        return await lent.fetchval(_DELETE, key.tenant, key.conversation) is not None
