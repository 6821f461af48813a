"""What was done beside a turn: told in its trace, and charged for."""

from collections.abc import Sequence
from typing import Any

from domain.conversation import ConversationKey
from domain.errors import NotFound
from domain.ledger import Charge
from storage import rows
from storage.postgres import Pool, reading

_LAST_ATTEMPT = "SELECT coalesce(max(attempt), 1) FROM brain.usage WHERE tenant_id = $1 AND turn_id = $2"


async def add_aside(
    pool: Pool, key: ConversationKey, turn_id: str, name: str, report: dict[str, Any], calls: Sequence[Charge]
) -> None:
    """Add `report` to the trace of an ended turn as `name`, and charge `calls`.

    Not fenced: nothing that an owner decides by is changed, and the turn has ended. Raises `NotFound` where it was
    deleted, with `calls` charged all the same.
    """
    async with reading(pool, key.tenant) as connection:
        turn = await connection.fetchrow(
            "UPDATE brain.turns t SET trace = coalesce(t.trace, '{}') || jsonb_build_object($5::text, $4::jsonb)"
            " FROM brain.conversations c WHERE t.tenant_id = $1 AND t.conversation_id = $2 AND t.id = $3"
            " AND t.status IN ('completed', 'failed', 'cancelled') AND c.tenant_id = t.tenant_id"
            " AND c.id = t.conversation_id RETURNING t.attempt, t.caller, c.user_id",
            key.tenant,
            key.conversation,
            turn_id,
            report,
            name,
        )
        attempt = turn["attempt"] if turn else await connection.fetchval(_LAST_ATTEMPT, key.tenant, turn_id)
        await connection.fetchval(
            "SELECT brain.settle($1, $2, $3, $4, $5, $6, $7)",
            key.tenant,
            turn_id,
            attempt,
            key.conversation,
            turn and turn["user_id"],
            turn and turn["caller"],
            rows.calls(calls),
        )
    if turn is None:
        raise NotFound("there is no such turn")
