"""The writes of a conversation's owner (`domain.ports.ConversationStore`): each is one call of a function in SQL."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from domain.commands import Append, Appended, Ended, Send, UnfinishedTurn
from domain.context import Remembered, Summary
from domain.conversation import Conversation, ConversationKey
from domain.errors import BudgetExceeded, IdempotencyMismatch, MessageGone, NotFound
from domain.ledger import Charge
from domain.message import Message
from domain.ports import AcceptedTurn, Activation, Ownership, Reply
from domain.turn import Turn, TurnStatus
from storage import rows
from storage.history import History
from storage.postgres import Pool, call, reading
from storage.shadows import Shadows
from storage.summaries import Summaries, summary_from
from storage.tool_calls import ToolCalls


class PostgresConversations(History, Shadows, Summaries, ToolCalls):
    """`recent`: how many messages an activation reads at the most."""

    def __init__(self, pool: Pool, recent: int = 200) -> None:
        self._pool, self._recent = pool, recent

    async def activate(self, key: ConversationKey, host: str) -> Activation:
        activation = str(uuid.uuid4())
        row = await call(
            self._pool,
            "SELECT brain.activate($1, $2, $3, $4, $5), brain.summary_of($1, $2)",
            key.tenant,
            key.conversation,
            host,
            activation,
            self._recent,
        )
        found = row[0]
        state = found["conversation"]
        return Activation(
            ownership=Ownership(state["epoch"], activation),
            conversation=rows.conversation(state),
            window_from=state["window_from"],
            recent=[Remembered.of(order, seq, role, content) for order, seq, role, content in found["recent"]],
            unfinished=[_unfinished(turn) for turn in found["unfinished"]],
            model=found.get("model"),
            summary=Summary() if row[1] is None else summary_from(row[1]),
        )

    async def accept(self, key: ConversationKey, owner: Ownership, send: Send) -> AcceptedTurn:
        row = await call(
            self._pool,
            "SELECT * FROM brain.accept_turn($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20)",
            key.tenant,
            key.conversation,
            owner.epoch,
            owner.activation,
            send.caller,
            send.idempotency_key,
            send.body_hash,
            send.turn_id,
            send.message_id,
            send.content,
            send.model,
            send.parameters,
            send.metadata,
            send.live,
            send.understand,
            send.on_busy == "reject",
            send.regenerates,
            list(send.models),
            send.keep,
            send.reserve,
        )
        if row["outcome"] == "budget":
            raise BudgetExceeded()
        if row["outcome"] == "mismatch":
            raise IdempotencyMismatch()
        if row["outcome"] == "replayed":
            return await self._replayed(key.tenant, row["turn_id"], replayed=row["turn_id"] != send.turn_id)
        if send.regenerates is not None:
            return await self._replayed(key.tenant, send.turn_id, replayed=False)
        turn = Turn.model_construct(
            id=send.turn_id,
            object="turn",
            conversation_id=key.conversation,
            status=TurnStatus(row["turn_status"]),
            attempt=1,
            model=None,
            error=None,
            usage=None,
            created_at=row["at"],
            completed_at=None,
        )
        user_message = Message.model_construct(
            id=send.message_id,
            object="message",
            conversation_id=key.conversation,
            turn_id=send.turn_id,
            seq=row["seq"],
            role="user",
            content=send.content,
            status="completed",
            model=None,
            intent=None,
            usage=None,
            cost_usd=None,
            citations=[],
            metadata=send.metadata,
            created_at=row["at"],
        )
        return AcceptedTurn(turn, user_message)

    async def start(self, key: ConversationKey, owner: Ownership, turn_id: str) -> bool:
        sql = "SELECT brain.start_turn($1, $2, $3, $4, $5)"
        row = await call(self._pool, sql, key.tenant, key.conversation, owner.epoch, owner.activation, turn_id)
        return bool(row[0])

    async def next_attempt(
        self, key: ConversationKey, owner: Ownership, turn_id: str, attempt: int, calls: Sequence[Charge] = ()
    ) -> None:
        await call(
            self._pool,
            "SELECT brain.next_attempt($1, $2, $3, $4, $5, $6, $7)",
            key.tenant,
            key.conversation,
            owner.epoch,
            owner.activation,
            turn_id,
            attempt,
            rows.calls([replace(one, reply=False) for one in calls]),  # its text was taken back
        )

    async def finish(
        self, key: ConversationKey, owner: Ownership, turn: UnfinishedTurn, attempt: int, reply: Reply
    ) -> Ended:
        row = await call(
            self._pool,
            "SELECT * FROM brain.finish_turn"
            "($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20,$21,$22)",
            key.tenant,
            key.conversation,
            owner.epoch,
            owner.activation,
            turn.turn.id,
            attempt,
            reply.status,
            reply.message_id,
            reply.text,
            reply.model,
            reply.provider,
            reply.intent and reply.intent.model_dump(),
            reply.usage and reply.usage.model_dump(),
            reply.cost_usd,
            reply.error,
            reply.layout,
            reply.trace,
            reply.window_from,
            reply.estimated,
            reply.citations,
            rows.calls(reply.calls),
            rows.versions(reply.versions),
        )
        if row["again"]:
            ended = await self.ended(key.tenant, turn.turn.id)
            assert ended is not None
            return ended
        status, at = row["status"], row["at"]
        update = {"model": reply.model, "error": reply.error, "usage": reply.usage}
        ended_turn = turn.turn.model_copy(
            update={**update, "status": TurnStatus(status), "attempt": attempt, "completed_at": at}
        )
        message = None
        if row["seq"] is not None:
            message = Message.model_construct(
                id=reply.message_id,
                object="message",
                conversation_id=key.conversation,
                turn_id=turn.turn.id,
                seq=row["seq"],
                role="assistant",
                content=reply.text,
                status=status,
                model=reply.model,
                intent=reply.intent,
                usage=reply.usage,
                cost_usd=reply.cost_usd,
                citations=reply.citations,
                metadata={},
                created_at=at,
            )
        return Ended(ended_turn, turn.user_message.model_copy(update={"intent": reply.intent}), message)

    async def change(self, key: ConversationKey, owner: Ownership, fields: dict[str, Any], end: bool) -> Conversation:
        sql = "SELECT brain.change_conversation($1, $2, $3, $4, $5, $6)"
        row = await call(self._pool, sql, key.tenant, key.conversation, owner.epoch, owner.activation, fields, end)
        return rows.conversation(row[0])

    async def append(self, owner: Ownership, append: Append) -> Appended:
        key = append.key
        row = await call(
            self._pool,
            "SELECT * FROM brain.append_system_message($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            key.tenant,
            key.conversation,
            owner.epoch,
            owner.activation,
            append.caller,
            append.idempotency_key,
            append.body_hash,
            append.message_id,
            append.content,
            append.metadata,
        )
        if row["outcome"] == "mismatch":
            raise IdempotencyMismatch()
        async with reading(self._pool, key.tenant) as connection:
            found = await connection.fetchrow(
                f"SELECT {rows.MESSAGE} FROM {rows.MESSAGES} WHERE m.tenant_id = $1 AND m.id = $2",
                key.tenant,
                row["message_id"],
            )
        if found is None:
            raise MessageGone()
        return Appended(rows.message(found), row["message_id"] != append.message_id)

    async def delete(self, key: ConversationKey, owner: Ownership) -> None:
        sql = "SELECT brain.delete_conversation($1, $2, $3, $4)"
        await call(self._pool, sql, key.tenant, key.conversation, owner.epoch, owner.activation)

    async def replayed(self, key: ConversationKey, send: Send) -> AcceptedTurn | None:
        async with reading(self._pool, key.tenant) as connection:
            row = await connection.fetchrow(
                "SELECT turn_id, body_hash FROM brain.idempotency WHERE tenant_id = $1 AND caller = $2 AND key = $3"
                " AND created_at > now() - interval '24 hours'",
                key.tenant,
                send.caller,
                send.idempotency_key,
            )
        if row is None:
            return None
        if row["body_hash"] != send.body_hash or row["turn_id"] is None:
            raise IdempotencyMismatch()
        return await self._replayed(key.tenant, row["turn_id"], replayed=True)

    async def ended(self, tenant: str, turn_id: str) -> Ended | None:
        turn, user_message, message = await self._turn(tenant, turn_id)
        return Ended(turn, user_message, message) if turn.status.ended else None

    async def _replayed(self, tenant: str, turn_id: str, replayed: bool) -> AcceptedTurn:
        turn, user_message, _ = await self._turn(tenant, turn_id)
        if user_message is None:
            raise MessageGone()
        return AcceptedTurn(turn, user_message, replayed)

    async def _turn(self, tenant: str, turn_id: str) -> tuple[Turn, Message | None, Message | None]:
        async with reading(self._pool, tenant) as connection:
            row = await connection.fetchrow(
                f"SELECT {rows.TURN}, user_seq FROM brain.turns WHERE tenant_id = $1 AND id = $2", tenant, turn_id
            )
            if row is None:
                raise NotFound()
            messages = [
                rows.message(message)
                for message in await connection.fetch(
                    f"SELECT {rows.MESSAGE} FROM {rows.MESSAGES} WHERE {rows.OF_TURN}",
                    tenant,
                    turn_id,
                    row["conversation_id"],
                    row["user_seq"],
                )
            ]
        asked = next((message for message in messages if message.role == "user"), None)
        reply = next((message for message in messages if message.role == "assistant"), None)
        return rows.turn(row), asked, reply


def _unfinished(row: dict[str, Any]) -> UnfinishedTurn:
    turn = rows.turn(row)
    asked = Message(
        id=row["message_id"],
        conversation_id=turn.conversation_id,
        turn_id=row["message_turn"],
        seq=row["user_seq"],
        role="user",
        content=row["content"],
        metadata=row["metadata"],
        created_at=row["message_at"],
    )
    return UnfinishedTurn(
        turn,
        asked,
        row["requested_model"],
        row["parameters"],
        row["live"],
        row["understand"],
        row["cancel_requested"],
        row["regenerates"],
        tuple(row["models"]),
        row["keep"],
        None if row.get("reserved_usd") is None else Decimal(str(row["reserved_usd"])),
    )
