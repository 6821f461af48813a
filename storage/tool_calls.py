"""The calls of tools that turns make, written down before they are made (`domain.tool_calls`)."""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from domain.conversation import ConversationKey
from domain.ports import Ownership
from domain.tool_calls import CallState, ToolCall
from storage.postgres import Pool, call, reading


class ToolCalls:
    """A part of the conversations' store."""

    _pool: Pool

    async def tool_calls(self, tenant: str, turn_id: str) -> list[ToolCall]:
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch(
                "SELECT * FROM brain.tool_calls WHERE tenant_id = $1 AND turn_id = $2 ORDER BY round, place",
                tenant,
                turn_id,
            )
        return [_call(row) for row in rows]

    async def plan_calls(self, key: ConversationKey, owner: Ownership, turn_id: str, calls: Sequence[ToolCall]) -> None:
        rows = [
            {
                "round": one.round,
                "place": one.place,
                "call_id": one.call_id,
                "name": one.name,
                "server": one.server,
                "server_name": one.server_name,
                "tool": one.tool,
                "arguments": one.arguments,
                "repeatable": one.repeatable,
                "state": one.state.value,
                "result": one.result,
            }
            for one in calls
        ]
        await call(
            self._pool,
            "SELECT brain.plan_tool_calls($1, $2, $3, $4, $5, $6)",
            key.tenant,
            key.conversation,
            owner.epoch,
            owner.activation,
            turn_id,
            rows,
        )

    async def start_calls(
        self, key: ConversationKey, owner: Ownership, turn_id: str, round: int, by: str
    ) -> list[ToolCall]:
        row = await call(
            self._pool,
            "SELECT brain.start_tool_calls($1, $2, $3, $4, $5, $6, $7)",
            key.tenant,
            key.conversation,
            owner.epoch,
            owner.activation,
            turn_id,
            round,
            by,
        )
        return [_call(one) for one in row[0]]

    async def end_call(self, tenant: str, turn_id: str, ended: ToolCall) -> ToolCall:
        """`ended` as it is stored."""
        await call(
            self._pool,
            "SELECT brain.end_tool_call($1, $2, $3, $4, $5, $6, $7)",
            tenant,
            turn_id,
            ended.round,
            ended.place,
            ended.state.value,
            ended.result,
            ended.ms,
        )
        return ended


def _call(row: asyncpg.Record | Mapping[str, Any]) -> ToolCall:
    return ToolCall(
        round=row["round"],
        place=row["place"],
        call_id=row["call_id"],
        name=row["name"],
        server=row["server_id"],
        server_name=row["server_name"],
        tool=row["tool"],
        arguments=row["arguments"],
        repeatable=row["repeatable"],
        state=CallState(row["state"]),
        result=row["result"],
        ms=row["ms"],
    )
