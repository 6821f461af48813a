"""Changes of single messages, which need no owner of the conversation."""

from typing import Any

from domain.errors import ConversationBusy, NotFound
from domain.message import Message
from storage import rows
from storage.postgres import Pool, reading
from storage.retry import again
from storage.versions import stand_anew

_FORGET = """
UPDATE brain.turns SET
    trace = trace - 'understanding',
    intent = intent || '{"parameters": {}}',
    layout = (SELECT jsonb_agg(CASE WHEN entry->>'type' = 'turn.intent'
            THEN jsonb_set(entry, '{intent,parameters}', '{}') ELSE entry END ORDER BY place)
        FROM jsonb_array_elements(layout) WITH ORDINALITY AS said(entry, place))
    WHERE tenant_id = $1 AND conversation_id = $2 AND user_seq = $3 AND intent IS NOT NULL
"""
"""What was taken out of a message's text goes with it."""


class MessageEdits:
    _pool: Pool

    @again
    async def set_metadata(self, tenant: str, message_id: str, metadata: dict[str, Any]) -> Message:
        """Replace the message's metadata. Raises `NotFound`."""
        async with reading(self._pool, tenant) as lent:
            await lent.execute(
                "UPDATE brain.messages SET metadata = $3 WHERE tenant_id = $1 AND id = $2", tenant, message_id, metadata
            )
            row = await lent.fetchrow(
                f"SELECT {rows.MESSAGE} FROM {rows.MESSAGES} WHERE m.tenant_id = $1 AND m.id = $2", tenant, message_id
            )
        if row is None:
            raise NotFound("there is no such message")
        return rows.message(row)

    async def delete_message(self, tenant: str, message_id: str) -> None:
        """Remove a message; its `seq` stays unused. Raises `NotFound`; `ConversationBusy` beside an unfinished turn.

        Of a reply that stood before others, the newest whole one of these takes its place.

        The conversation's claim is taken away, so that the next turn reads a history without this message.
        """
        async with reading(self._pool, tenant) as lent:
            conversation = await lent.fetchval(
                "SELECT c.id FROM brain.messages m JOIN brain.conversations c"
                " ON c.tenant_id = m.tenant_id AND c.id = m.conversation_id"
                " WHERE m.tenant_id = $1 AND m.id = $2 FOR NO KEY UPDATE OF c",
                tenant,
                message_id,
            )
            if conversation is None:
                raise NotFound("there is no such message")
            if await lent.fetchval(
                "SELECT EXISTS (SELECT FROM brain.turns WHERE tenant_id = $1 AND conversation_id = $2"
                " AND status IN ('queued', 'running'))",
                tenant,
                conversation,
            ):
                raise ConversationBusy("a turn of this conversation is not finished; delete the message after it")
            gone = await lent.fetchrow(
                "DELETE FROM brain.messages WHERE tenant_id = $1 AND id = $2 RETURNING seq, turn_order, role",
                tenant,
                message_id,
            )
            if gone is None:  # somebody else deleted it while we waited for the lock
                raise NotFound("there is no such message")
            if gone["role"] == "assistant":
                await stand_anew(lent, tenant, conversation, gone["turn_order"])
            else:
                await lent.execute(_FORGET, tenant, conversation, gone["seq"])
            await lent.execute(
                "UPDATE brain.conversations SET message_count = message_count - 1, epoch = epoch + 1,"
                " activation = NULL, host = NULL, updated_at = clock_timestamp() WHERE tenant_id = $1 AND id = $2",
                tenant,
                conversation,
            )
            await lent.execute(
                "INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES ($1, 'message.deleted', $2)",
                tenant,
                {"conversation_id": conversation, "message_id": message_id, "seq": gone["seq"]},
            )
