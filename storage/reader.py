"""What the ingress reads of Postgres, and the few writes that need no owner: creation, a message's metadata, cancel."""

from dataclasses import dataclass
from typing import Any

from domain.conversation import Conversation, ConversationStatus
from domain.errors import NotFound
from domain.events import Layout
from domain.message import Message
from domain.tenant import Caller
from domain.turn import Turn, TurnStatus
from storage import (
    access,
    creation,
    feedback,
    insight,
    message_edits,
    message_intents,
    model_metrics,
    rows,
    summaries,
    turns,
    versions,
)
from storage.pages import Page, PageQuery, page_of
from storage.postgres import Connection, Pool, asking, reading
from storage.retry import again


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """A turn with its messages, as far as they are kept. `layout` and `message` stand once it has ended."""

    turn: Turn
    user_message: Message | None
    message: Message | None
    layout: Layout | None
    cost_usd: float | None


class PostgresReader(
    access.Access,
    message_edits.MessageEdits,
    versions.Versions,
    insight.Insight,
    model_metrics.ModelMetrics,
    feedback.FeedbackOnAnswers,
    message_intents.MessageIntents,
    summaries.SummariesToRead,
    turns.TurnsOfConversations,
):
    """Every method may raise `Unavailable`, reads after three tries; `NotFound` where the tenant has no such thing."""

    def __init__(self, pool: Pool, peppers: tuple[bytes, ...] = ()) -> None:
        self._pool, self._peppers = pool, peppers

    @again
    async def ping(self) -> None:
        async with asking(self._pool) as lent:
            await lent.fetchval("SELECT 1")

    @again
    async def key_is_known(self, tenant: str, caller: str, key: str) -> bool:
        """Whether this caller's idempotency key named a turn before."""
        async with reading(self._pool, tenant) as lent:
            sql = "SELECT EXISTS (SELECT FROM brain.idempotency WHERE tenant_id = $1 AND caller = $2 AND key = $3)"
            known: bool = await lent.fetchval(sql, tenant, caller, key)
        return known

    async def create_conversation(self, caller: Caller, new: creation.NewConversation) -> tuple[Conversation, bool]:
        """The conversation, and whether it was created by an earlier request. Raises `IdempotencyMismatch`."""
        return await creation.create_conversation(self._pool, caller, new)

    @again
    async def conversation(self, tenant: str, conversation_id: str) -> Conversation:
        async with reading(self._pool, tenant) as lent:
            return await _conversation(lent, tenant, conversation_id)

    @again
    async def conversations(
        self, tenant: str, query: PageQuery, status: ConversationStatus | None = None, user_id: str | None = None
    ) -> Page[Conversation]:
        """Conversations in the order of their ids, which is that of their creation."""
        compare, direction = ("<", "DESC") if query.descending else (">", "ASC")
        conditions, args = ["tenant_id = $1"], [tenant, query.limit + 1]
        for value, test in ((query.after, f"id {compare}"), (status, "status ="), (user_id, "user_id =")):
            if value is not None:
                args.append(value)
                conditions.append(f"{test} ${len(args)}")
        async with reading(self._pool, tenant) as lent:
            found = await lent.fetch(
                f"SELECT {rows.CONVERSATION} FROM brain.conversations WHERE {' AND '.join(conditions)}"
                f" ORDER BY id {direction} LIMIT $2",
                *args,
            )
        return page_of([rows.conversation(row) for row in found], query)

    @again
    async def messages(self, tenant: str, conversation_id: str, query: PageQuery) -> Page[Message]:
        compare, direction = ("<", "DESC") if query.descending else (">", "ASC")
        async with reading(self._pool, tenant) as lent:
            await _conversation(lent, tenant, conversation_id)
            args: list[Any] = [tenant, conversation_id, query.limit + 1]
            beyond = ""
            if query.after is not None:
                seq = await lent.fetchval(
                    "SELECT seq FROM brain.messages WHERE tenant_id = $1 AND conversation_id = $2 AND id = $3",
                    tenant,
                    conversation_id,
                    query.after,
                )
                if seq is None:
                    raise NotFound("there is no message with the id that `after` names")
                args.append(seq)
                beyond = f" AND m.seq {compare} $4"
            found = await lent.fetch(
                f"SELECT {rows.MESSAGE} FROM {rows.MESSAGES} WHERE m.tenant_id = $1 AND m.conversation_id = $2{beyond}"
                f" ORDER BY m.seq {direction} LIMIT $3",
                *args,
            )
        return page_of([rows.message(row) for row in found], query)

    @again
    async def message(
        self, tenant: str, message_id: str, around: int = 0
    ) -> tuple[list[Message], Message, list[Message]]:
        """The message with up to `around` messages before and after it, in the order of `seq`."""
        async with reading(self._pool, tenant) as lent:
            row = await lent.fetchrow(
                f"SELECT {rows.MESSAGE} FROM {rows.MESSAGES} WHERE m.tenant_id = $1 AND m.id = $2", tenant, message_id
            )
            if row is None:
                raise NotFound("there is no such message")
            near = []
            for compare, direction in (("<", "DESC"), (">", "ASC")) if around else ():
                near += await lent.fetch(
                    f"SELECT {rows.MESSAGE} FROM {rows.MESSAGES} WHERE m.tenant_id = $1 AND m.conversation_id = $2"
                    f" AND m.seq {compare} $3 ORDER BY m.seq {direction} LIMIT $4",
                    tenant,
                    row["conversation_id"],
                    row["seq"],
                    around,
                )
        found = sorted((rows.message(one) for one in near), key=lambda one: one.seq)
        before = [one for one in found if one.seq < row["seq"]]
        return before, rows.message(row), found[len(before) :]

    @again
    async def turn(self, tenant: str, turn_id: str) -> Turn:
        async with reading(self._pool, tenant) as lent:
            return rows.turn(await _turn(lent, tenant, turn_id, rows.TURN))

    @again
    async def stored_turn(self, tenant: str, turn_id: str) -> StoredTurn:
        """The turn with its messages and the layout of its stream."""
        async with reading(self._pool, tenant) as lent:
            row = await _turn(lent, tenant, turn_id, f"{rows.TURN}, user_seq, layout, cost_usd")
            found = await lent.fetch(
                f"SELECT {rows.MESSAGE} FROM {rows.MESSAGES} WHERE {rows.OF_TURN}",
                tenant,
                turn_id,
                row["conversation_id"],
                row["user_seq"],
            )
        messages = {one.role: one for one in map(rows.message, found)}
        return StoredTurn(
            rows.turn(row), messages.get("user"), messages.get("assistant"), row["layout"], row["cost_usd"]
        )

    @again
    async def turn_state(self, tenant: str, turn_id: str) -> TurnStatus:
        async with reading(self._pool, tenant) as lent:
            return TurnStatus((await _turn(lent, tenant, turn_id, "status"))["status"])

    @again
    async def trace(self, tenant: str, turn_id: str) -> dict[str, Any] | None:
        """The trace of a turn; None while it runs."""
        async with reading(self._pool, tenant) as lent:
            trace: dict[str, Any] | None = (await _turn(lent, tenant, turn_id, "trace"))["trace"]
        return trace

    @again
    async def request_cancel(self, tenant: str, turn_id: str) -> tuple[str, TurnStatus]:
        """Ask for the turn's cancellation, unless it has ended; gives its conversation and its state."""
        async with reading(self._pool, tenant) as lent:
            row = await lent.fetchrow(
                "UPDATE brain.turns SET cancel_requested = true WHERE tenant_id = $1 AND id = $2"
                " AND status IN ('queued', 'running') RETURNING conversation_id, status",
                tenant,
                turn_id,
            )
            row = row or await _turn(lent, tenant, turn_id, "conversation_id, status")
        return row["conversation_id"], TurnStatus(row["status"])


async def _conversation(lent: Connection, tenant: str, conversation_id: str) -> Conversation:
    row = await lent.fetchrow(
        f"SELECT {rows.CONVERSATION} FROM brain.conversations WHERE tenant_id = $1 AND id = $2", tenant, conversation_id
    )
    if row is None:
        raise NotFound("there is no such conversation")
    return rows.conversation(row)


async def _turn(lent: Connection, tenant: str, turn_id: str, columns: str) -> Any:
    row = await lent.fetchrow(f"SELECT {columns} FROM brain.turns WHERE tenant_id = $1 AND id = $2", tenant, turn_id)
    if row is None:
        raise NotFound("there is no such turn")
    return row
