"""What is asked of a conversation's host, and what it answers. Plain data, for it crosses processes."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from domain.carried import carried
from domain.conversation import ConversationKey
from domain.message import Message
from domain.model import AUTO
from domain.turn import OnBusy, Turn

Keep = Literal["first", "best", "all"]


@carried
@dataclass(frozen=True, slots=True)
class Send:
    """A user's message. Ids and the idempotency key are made once per request, before the first try.

    `body_hash` tells whether a repeated key came with the same body. `understand`: classify the message even if the
    caller named a model. `wait`: answer when the turn has ended, not when it was accepted. `regenerates`: the message
    whose reply is made anew; no user message is added then. `models`: several that answer side by side, of which `keep`
    chooses. `reserve`: USD to hold of the tenant's budget until the turn has ended.
    """

    key: ConversationKey
    caller: str
    idempotency_key: str
    body_hash: bytes
    turn_id: str
    message_id: str
    content: str
    model: str = AUTO
    parameters: dict[str, Any] = field(default_factory=dict)
    on_busy: OnBusy = "queue"
    metadata: dict[str, Any] = field(default_factory=dict)
    live: bool = True
    understand: bool = True
    wait: bool = False
    regenerates: str | None = None
    models: tuple[str, ...] = ()
    keep: Keep = "first"
    reserve: Decimal | None = None


@carried
@dataclass(frozen=True, slots=True)
class Accepted:
    """The turn stands in Postgres. `journalled`: its stream can be followed in Redis."""

    turn: Turn
    user_message: Message
    replayed: bool = False
    journalled: bool = True


@carried
@dataclass(frozen=True, slots=True)
class Ended:
    """A turn that has ended, as stored. `message` is the reply, or None where none was kept. `status` is HTTP's."""

    turn: Turn
    user_message: Message | None
    message: Message | None
    replayed: bool = False


@carried
@dataclass(frozen=True, slots=True)
class Change:
    """`PATCH` of a conversation (only the given fields), or its end."""

    key: ConversationKey
    fields: dict[str, Any] = field(default_factory=dict)
    end: bool = False


@carried
@dataclass(frozen=True, slots=True)
class Append:
    """A message of the role `system`, which later prompts tell at its place. The rest is as of `Send`."""

    key: ConversationKey
    caller: str
    idempotency_key: str
    body_hash: bytes
    message_id: str
    content: str
    metadata: dict[str, Any] = field(default_factory=dict)


@carried
@dataclass(frozen=True, slots=True)
class Appended:
    """The message stands. `replayed`: an earlier request of this key added it."""

    message: Message
    replayed: bool = False


@carried
@dataclass(frozen=True, slots=True)
class Refused:
    """Why a call was not carried out: an error's class name and words; `retryable` ones may be sent again."""

    error: str
    message: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class UnfinishedTurn:
    """A queued or running turn, with all that its owner needs to bring it to its end.

    `user_message` is the one that is answered, also where an earlier turn brought it and this one `regenerates`.
    `reserved`: USD of the tenant's budget that are held for it.
    """

    turn: Turn
    user_message: Message
    requested_model: str
    parameters: dict[str, Any]
    live: bool
    understand: bool
    cancel_requested: bool = False
    regenerates: str | None = None
    models: tuple[str, ...] = ()
    keep: Keep = "first"
    reserved: Decimal | None = None

    @property
    def order(self) -> int:
        """Its place in the conversation: the `seq` of its user message."""
        return self.user_message.seq
