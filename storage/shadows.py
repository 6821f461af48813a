"""What another model answered beside a stored reply: kept in the turn's trace, and in the ledger."""

from collections.abc import Sequence
from typing import Any

from domain.conversation import ConversationKey
from domain.errors import NotFound
from domain.ledger import Charge
from storage import rows
from storage.postgres import Pool, reading


class Shadows:
    _pool: Pool

    async def shadow(self, key: ConversationKey, turn_id: str, report: dict[str, Any], calls: Sequence[Charge]) -> None:
        """Add `report` to the trace of a completed turn as `shadow`, and charge `calls`. Raises `NotFound`.

        Not fenced: nothing that an owner decides by is changed, and the turn has ended.
        """
        async with reading(self._pool, key.tenant) as connection:
            turn = await connection.fetchrow(
                "UPDATE brain.turns t SET trace = coalesce(t.trace, '{}') || jsonb_build_object('shadow', $4::jsonb)"
                " FROM brain.conversations c WHERE t.tenant_id = $1 AND t.conversation_id = $2 AND t.id = $3"
                " AND t.status = 'completed' AND c.tenant_id = t.tenant_id AND c.id = t.conversation_id"
                " RETURNING t.attempt, t.caller, c.user_id",
                key.tenant,
                key.conversation,
                turn_id,
                report,
            )
            if turn is None:
                raise NotFound("there is no such turn")
            await connection.fetchval(
                "SELECT brain.settle($1, $2, $3, $4, $5, $6, $7)",
                key.tenant,
                turn_id,
                turn["attempt"],
                key.conversation,
                turn["user_id"],
                turn["caller"],
                rows.calls(calls),
            )
