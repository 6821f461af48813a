"""Conversations with a past, put into the database at once: talking 10,000 messages through would take hours."""

import uuid
from collections.abc import Sequence

import asyncpg

MAKE = "INSERT INTO brain.conversations (tenant_id, id) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING"
TURNS = """
INSERT INTO brain.turns (tenant_id, id, conversation_id, user_seq, status, requested_model, live, understand, model,
        created_at, started_at, completed_at)
    SELECT $1, 'turn_' || md5(c || ':turn:' || k), c, 2 * k - 1, 'completed', 'mock', false, false, 'mock',
        now(), now(), now()
    FROM unnest($2::text[]) c, generate_series(1, $3::int / 2) k
"""
MESSAGES = """
INSERT INTO brain.messages (tenant_id, conversation_id, seq, id, turn_id, turn_order, role, content, status, model,
        created_at)
    SELECT $1, c, s, 'msg_' || md5(c || ':message:' || s), 'turn_' || md5(c || ':turn:' || (s + 1) / 2),
        (s + 1) / 2 * 2 - 1, CASE s % 2 WHEN 1 THEN 'user' ELSE 'assistant' END,
        'Message ' || s || ' ' || repeat('of a long conversation about an order and its delivery ', 1 + s % 4),
        'completed', CASE s % 2 WHEN 0 THEN 'mock' END, now()
    FROM unnest($2::text[]) c, generate_series(1, $3::int) s
"""
ADVANCE = """
UPDATE brain.conversations SET message_count = $3, next_seq = $3 + 1 WHERE tenant_id = $1 AND id = ANY($2::text[])
"""


def new_conversations(count: int) -> list[str]:
    """Ids that nobody uses yet."""
    return [f"conv_{uuid.uuid4().hex}" for _ in range(count)]


async def fill(database: asyncpg.Connection, tenant: str, conversations: Sequence[str], messages: int) -> None:
    """Make the conversations, each with `messages` (an even number) messages of 10 to 40 words in turns that ended."""
    async with database.transaction():
        await database.execute(MAKE, tenant, conversations)
        await database.execute(TURNS, tenant, conversations, messages)
        await database.execute(MESSAGES, tenant, conversations, messages)
        await database.execute(ADVANCE, tenant, conversations, messages)
    await database.execute("ANALYZE brain.conversations, brain.turns, brain.messages")
