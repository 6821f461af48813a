"""What was said before a place in a conversation that its owner no longer holds in memory."""

from domain.context import Remembered
from domain.conversation import ConversationKey
from storage.postgres import Pool, reading


class History:
    _pool: Pool

    async def before(self, key: ConversationKey, order: int, limit: int) -> list[Remembered]:
        """The user's message at `order` and at most `limit` messages before it, no superseded ones, in order of `seq`.

        Replies to the message itself are left out.
        """
        async with reading(self._pool, key.tenant) as connection:
            found = await connection.fetch(
                "SELECT turn_order, seq, role, content FROM brain.messages"
                " WHERE tenant_id = $1 AND conversation_id = $2 AND superseded_by IS NULL"
                " AND (turn_order < $3 OR seq = $3) ORDER BY turn_order DESC, seq DESC LIMIT $4",
                key.tenant,
                key.conversation,
                order,
                limit + 1,
            )
        return sorted((Remembered.of(*row) for row in found), key=lambda one: one.seq)
