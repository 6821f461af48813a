"""What a host does with a conversation, call by call, as its actor would; and what it has told its clients."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from domain.commands import Send, UnfinishedTurn
from domain.conversation import ConversationKey
from domain.errors import BrainError, CommitUnknown, Fenced
from domain.ids import new_id
from domain.message import MessageStatus
from domain.ports import ConversationStore, Ownership, Reply
from domain.turn import TurnStatus

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ack:
    """A client was told that its message stands. `text` is its own: no two messages of a run say the same.

    `place`: the turn and the `seq` that the client was told, if any.
    """

    host: str
    text: str
    place: tuple[str, int] | None


@dataclass(slots=True)
class Told:
    """What the hosts of a run have answered, in order; `refused` are the turns of messages that were not taken."""

    acks: list[Ack] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    defects: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Host:
    """Ends at the first refusal. A commit whose outcome is unknown is repeated, as the actor repeats it."""

    name: str
    key: ConversationKey
    store: ConversationStore
    told: Told
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    turns: dict[str, UnfinishedTurn] = field(default_factory=dict)
    _owner: Ownership | None = None
    quiet: ClassVar[int] = 20  # turns of the event loop at most between two calls

    async def run(self, script: "Script") -> None:
        try:
            await script(self)
        except BrainError:
            return
        except Exception as error:
            self.told.defects.append(f"{self.name}: {error!r}")

    async def activate(self) -> None:
        found = await patiently(lambda: self.store.activate(self.key, self.id))
        self._owner = found.ownership
        self.turns = {turn.turn.id: turn for turn in found.unfinished}

    async def serve(self, text: str, times: int = 3) -> None:
        """Take a message in, and the conversation over again if another host has it. Raises `Fenced` after `times`."""
        for _ in range(times):
            try:
                if self._owner is None:
                    await self.activate()
                await self.accept(text)
                return
            except Fenced:
                self.discard()
        raise Fenced("its client gives up")

    def discard(self) -> None:
        """Another host owns the conversation: what was known of it counts no more."""
        self._owner = None
        self.turns = {}

    async def accept(self, text: str) -> None:
        """Take a message in; the client's idempotency key is the text's, whichever host the client asks."""
        send = self.send(text)
        try:
            accepted = await self.store.accept(self.key, self.owner, send)
        except CommitUnknown:
            accepted = await patiently(lambda: self.store.accept(self.key, self.owner, send))
        except BrainError:
            self.told.refused.add(send.turn_id)
            raise
        self.acknowledge(text, (accepted.turn.id, accepted.user_message.seq))
        if accepted.turn.status is TurnStatus.QUEUED and not self.turns:
            raise Fenced("a turn stands that this owner does not know")
        if accepted.turn.id not in self.turns and not accepted.turn.status.ended:
            self.turns[accepted.turn.id] = UnfinishedTurn(accepted.turn, accepted.user_message, "m", {}, True, True)

    async def finish_one(self, status: MessageStatus = "completed") -> None:
        """Bring the turn that is first in order to its end; without one, nothing."""
        if not self.turns:
            return
        turn = self.first()
        if turn.turn.status is TurnStatus.QUEUED:
            await patiently(lambda: self.store.start(self.key, self.owner, turn.turn.id))
        attempt = turn.turn.attempt
        await patiently(lambda: self.store.finish(self.key, self.owner, turn, attempt, self.reply(status)))
        del self.turns[turn.turn.id]

    async def begin_again(self) -> None:
        """Make another attempt of the first turn, as after a lost generation; without a turn, nothing."""
        if not self.turns:
            return
        turn = self.first()
        attempt = turn.turn.attempt + 1
        await patiently(lambda: self.store.next_attempt(self.key, self.owner, turn.turn.id, attempt))
        turn.turn.attempt = attempt

    async def end(self) -> None:
        await patiently(lambda: self.store.change(self.key, self.owner, {}, end=True))

    async def delete(self) -> None:
        await patiently(lambda: self.store.delete(self.key, self.owner))

    def first(self) -> UnfinishedTurn:
        return next(iter(self.turns.values()))

    def reply(self, status: MessageStatus) -> Reply:
        """A reply of its own for each try: that it is the same one is no part of what the store may count on."""
        return Reply(status, new_id("msg"), f"{self.name} answers", None, None, None, None, None, None, {}, 1)

    def send(self, text: str) -> Send:
        name = f"{self.key.conversation} {text}"
        return Send(self.key, "client", name, text.encode(), new_id("turn"), new_id("msg"), text)

    def acknowledge(self, text: str, place: tuple[str, int] | None) -> None:
        self.told.acks.append(Ack(self.name, text, place))

    @property
    def owner(self) -> Ownership:
        assert self._owner is not None
        return self._owner


Script = Callable[[Host], Awaitable[None]]


async def patiently(work: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await work()
        except CommitUnknown:
            await asyncio.sleep(0)
