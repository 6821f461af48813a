"""Turns that are never written to Postgres: the measure of what durability costs, and no more."""

from collections import defaultdict
from datetime import UTC, datetime

from domain.commands import Ended, Send, UnfinishedTurn
from domain.conversation import ConversationKey
from domain.message import Message
from domain.ports import AcceptedTurn, Ownership, Reply
from domain.turn import Turn, TurnStatus
from storage.conversations import PostgresConversations


class UnwrittenConversations(PostgresConversations):
    """Accepts and finishes turns in memory; everything else as usual. A turn is lost with its process."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._seq: defaultdict[ConversationKey, int] = defaultdict(int)
        self._busy: defaultdict[ConversationKey, int] = defaultdict(int)

    async def accept(self, key: ConversationKey, owner: Ownership, send: Send) -> AcceptedTurn:
        now = datetime.now(UTC)
        status = TurnStatus.QUEUED if self._busy[key] else TurnStatus.RUNNING
        self._busy[key] += 1
        turn = Turn(id=send.turn_id, conversation_id=key.conversation, status=status, created_at=now)
        message = Message(
            id=send.message_id,
            conversation_id=key.conversation,
            turn_id=send.turn_id,
            seq=self._next(key),
            role="user",
            content=send.content,
            metadata=send.metadata,
            created_at=now,
        )
        return AcceptedTurn(turn, message)

    async def start(self, key: ConversationKey, owner: Ownership, turn_id: str) -> bool:
        return False

    async def finish(
        self, key: ConversationKey, owner: Ownership, turn: UnfinishedTurn, attempt: int, reply: Reply
    ) -> Ended:
        now = datetime.now(UTC)
        self._busy[key] -= 1
        ended = turn.turn.model_copy(
            update={"status": TurnStatus(reply.status), "model": reply.model, "error": reply.error, "completed_at": now}
        )
        message = Message(
            id=reply.message_id,
            conversation_id=key.conversation,
            turn_id=turn.turn.id,
            seq=self._next(key),
            role="assistant",
            content=reply.text,
            status=reply.status,
            model=reply.model,
            usage=reply.usage,
            cost_usd=reply.cost_usd,
            created_at=now,
        )
        return Ended(ended, turn.user_message, message)

    def _next(self, key: ConversationKey) -> int:
        self._seq[key] += 1
        return self._seq[key]
