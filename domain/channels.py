"""Channels: services of others on which people write, and through which they are answered.

A conversation is bound to threads of channels, and is seen whole on each of them. What came in on a channel is told to
the others; its own channel hears which ids it got. All that goes out is delivered at least once and in order per
conversation; `Outbound.id` is the same however often it is sent.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from domain.errors import BrainError

Kind = Literal["webhook", "service", "widget"]
KINDS: tuple[Kind, ...] = ("webhook", "service", "widget")
PUSHED: frozenset[Kind] = frozenset({"webhook", "service"})
"""Kinds that are sent what happens. The others read it from the conversation's own streams."""

ReceiptStatus = Literal["sent", "delivered", "read", "failed"]
InboundType = Literal["message", "typing", "receipt"]
OutboundType = Literal["message", "receipt", "typing", "deleted", "error", "ended"]
Result = Literal["taken", "later", "gone"]

RECEIPTS: dict[ReceiptStatus | None, frozenset[ReceiptStatus]] = {
    None: frozenset({"sent", "delivered", "read", "failed"}),
    "sent": frozenset({"delivered", "read", "failed"}),
    "delivered": frozenset({"read"}),
    "read": frozenset(),
    "failed": frozenset({"delivered", "read"}),
}
"""What may follow on what: receipts come late and twice, and never take anything back that was seen."""


class ChannelDisabled(BrainError):
    """This channel is disabled: enable it first."""

    status = 409
    type = "conflict_error"
    code = "channel_disabled"


class AlreadyBound(BrainError):
    """This thread belongs to another conversation, or the conversation to another thread of this channel."""

    status = 409
    type = "conflict_error"
    code = "already_bound"


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel of a tenant, ready to be used. `settings`: as its kind defines them. `secrets`: the present one, and
    the one before it while that counts too; no `repr` shows them."""

    tenant: str
    id: str
    kind: Kind
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    active: bool = True

    @property
    def model(self) -> str:
        """Which model answers its messages."""
        return str(self.settings.get("model") or "auto")


@dataclass(frozen=True, slots=True)
class Binding:
    """`thread`: the channel's own id of what it shows the conversation in. `user`: its id of who writes there."""

    tenant: str
    channel: str
    kind: Kind
    thread: str
    conversation: str
    user: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Inbound:
    """What a channel tells. `id`: its own, the same however often it tells it.

    `message`: `text` was written in `thread` by `user`. `typing`: whether `user` is writing. `receipt`: how far
    `message` (an id of ours) got, as `status`. `metadata` is kept with a message.
    """

    id: str
    type: InboundType
    thread: str
    user: str | None = None
    text: str = ""
    typing: bool = True
    message: str | None = None
    status: ReceiptStatus | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Received:
    """What became of it. `duplicate`: it had been told before, and nothing was done. Ids are those of the turn that it
    began; None of all that is no message, and of what concerns no conversation."""

    duplicate: bool = False
    conversation: str | None = None
    turn: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Outbound:
    """What is told to a channel about a conversation bound to it.

    `id`: for de-duplication. `data`, by type: `message` {message: as in the API}; `receipt` {message_id, turn_id,
    status} for `in_reply_to`, the id that the channel gave the message; `typing` {typing}; `deleted` {message_id};
    `error` {turn_id, error: its code}: a turn failed without a reply; `ended` {}.
    """

    id: str
    type: OutboundType
    conversation: str
    thread: str
    user: str | None
    at: datetime
    data: Mapping[str, Any] = field(default_factory=dict)
    in_reply_to: str | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """How an attempt to deliver went: `taken`, to be tried `later`, or `gone`: the receiver wants nothing more, ever.

    `status`: HTTP's, where there is one. `answer`: the beginning of what was answered. `after`: seconds that the
    receiver asks to wait. `error`: why it was not taken, in words. `ours`: nobody was asked, for want of this service:
    it is no attempt, and until the next one no time counts against the receiver.
    """

    result: Result
    status: int | None = None
    answer: str = ""
    after: float | None = None
    error: str | None = None
    ours: bool = False


@dataclass(frozen=True, slots=True)
class ChannelState:
    """`connected`: None for a kind that keeps no connection. `problem`: what is wrong with it, in words."""

    connected: bool | None = None
    since: datetime | None = None
    problem: str | None = None


Receive = Callable[[Channel, Inbound], Awaitable[Received]]
"""What every implementation calls with all that comes in. It may be called again with the same; of one thread, what is
awaited one after the other keeps its order. Raises `ConversationEnded` never (a thread goes on in a new conversation),
`Retryable` where nothing is known to have been done: the channel must be told so, and tell it again."""


class ChannelPort(Protocol):
    """One kind of channel: how its channels are reached. One instance serves all channels of its kind in a process.

    Methods raise nothing but `Retryable`; a channel that cannot be reached is no reason to stop the others.
    """

    kind: Kind

    def on_receive(self, receive: Receive) -> None:
        """Set what is called with all that comes in; before `connect`."""
        ...

    async def connect(self, channels: Sequence[Channel]) -> None:
        """Be connected to these, and to no others any more: called at the start and whenever they change. Kinds without
        a connection do nothing. Returns at once; connections come up, and are taken up again with growing pauses when
        they break, in the background."""
        ...

    async def send(self, channel: Channel, out: Outbound) -> Sent:
        """One attempt, within `SEND_WITHIN` seconds. Who calls repeats it with the same `out.id` until it is taken."""
        ...

    async def typing(self, channel: Channel, binding: Binding, typing: bool, user: str | None = None) -> None:
        """Tell that somebody writes (`user`), or that an answer is being made (None). Once, and if it gets lost it is
        lost."""
        ...

    async def status(self, channel: Channel) -> ChannelState: ...

    async def heartbeat(self, channel: Channel) -> bool:
        """Whether the other side answers now. Kinds without a connection ask nothing and say True."""
        ...

    async def reconnect(self, channel: Channel) -> None:
        """Give up the connection, if there is one, and take it up anew."""
        ...

    async def close(self) -> None:
        """End all connections; what is being sent may fail."""
        ...


SEND_WITHIN = 15.0  # seconds


@dataclass(frozen=True, slots=True)
class Arrived:
    """An inbound message by the ids that it has, now and if it comes again. `accepted`: its turn stands."""

    conversation: str
    turn: str
    message: str
    accepted: bool
    known: bool


class ChannelStore(Protocol):
    """Channels and their bindings. Methods may raise `Unavailable`, after three tries."""

    def found(self, channel_id: str) -> Awaitable[Channel | None]:
        """A channel by its id alone, of a tenant that is active; also a disabled one."""
        ...

    def active(self, kind: Kind) -> Awaitable[list[Channel]]:
        """All tenants' active channels of a kind."""
        ...

    def bound_to(self, tenant: str, conversation: str) -> Awaitable[list[tuple[Channel, Binding]]]:
        """The active channels of a conversation, with secrets, and its thread on each."""
        ...

    def thread(self, channel: Channel, thread: str) -> Awaitable[Binding | None]: ...

    def arrive(self, channel: Channel, inbound: Inbound) -> Awaitable[Arrived]:
        """Give an inbound message its ids, in one transaction with the conversation that its thread needs: made where
        the thread has none, or one that has ended. One that came before has the ids that it got then. Raises
        `QuotaExceeded`."""
        ...

    def receipt(self, channel: Channel, message: str, status: ReceiptStatus) -> Awaitable[bool]:
        """Keep how far a message of ours got on this channel; False where it is unknown, or known to be further."""
        ...
