"""What another model answered beside a stored reply: kept in the turn's trace, and in the ledger."""

from collections.abc import Sequence
from typing import Any

from domain.conversation import ConversationKey
from domain.ledger import Charge
from storage.asides import add_aside
from storage.postgres import Pool


class Shadows:
    _pool: Pool

    async def shadow(self, key: ConversationKey, turn_id: str, report: dict[str, Any], calls: Sequence[Charge]) -> None:
        """Add `report` to the trace of a completed turn as `shadow`, and charge `calls`. Raises `NotFound` where the
        turn was deleted, with `calls` charged all the same."""
        await add_aside(self._pool, key, turn_id, "shadow", report, calls)
