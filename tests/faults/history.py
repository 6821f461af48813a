"""What clients asked of the service, what they were told, and what it says at the end: one history, as JSON lines.

All calls of a history are made with one API key, for idempotency keys are a caller's own. Times are seconds of one
monotonic clock of the machine on which all its clients run.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from domain.events import ACCEPTED, TERMINAL, Event, Position, parse_event_id
from domain.message import MessageStatus, Role
from domain.turn import TurnStatus

Kind = Literal["create", "send", "read", "look", "stream", "cancel", "regenerate", "delete"]
Outcome = Literal["ok", "refused", "unknown"]


@dataclass(frozen=True, slots=True)
class Message:
    """What of a message never changes once it stands."""

    id: str
    conversation: str
    turn: str
    seq: int
    role: Role
    content: str
    status: MessageStatus = "completed"

    @classmethod
    def of(cls, body: dict[str, Any]) -> "Message":
        """From a Message of the API."""
        names = ("id", "conversation_id", "turn_id", "seq", "role", "content", "status")
        return cls(*(body[name] for name in names))


@dataclass(frozen=True, slots=True)
class TurnState:
    """A turn at one moment. `attempt` is None where the answer did not tell it (that of a failed turn does not)."""

    id: str
    status: TurnStatus
    attempt: int | None = None

    @classmethod
    def of(cls, body: dict[str, Any]) -> "TurnState":
        """From a Turn of the API."""
        return cls(body["id"], TurnStatus(body["status"]), body["attempt"])


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of one client, from `began` to `ended`.

    Kinds: `create` a conversation, `send` a message, `read` all messages (each page, in the order of `seq`), `look` at
    a turn, `stream` a turn's events, `cancel` it, `regenerate` a reply, `delete` the conversation.

    `outcome`: `ok`, and the answer stands below; `refused` with an error after which nothing has happened (4xx); or
    `unknown`, it may have happened (a time limit, a broken connection, 5xx). The error that tells of a failed turn
    (502 or 504 with the turn's id in `error.param`) is `ok`, and `turn` is that turn. A stream is `ok` if the service
    ended it; its events count in any case. `retry_after`: the seconds that the answer asked to wait.
    `left`: the client went away from the stream; `silent`: because it told nothing more, and did not end.

    Asked: `key` is the Idempotency-Key, `options` what the body held beside `content` and `stream`, `retry_of` the call
    that this one repeats (for people), `turn_id` or `message_id` what was named, `after` the Last-Event-ID. Where no
    two messages that were sent under different keys have the same `content`, an unanswered one is found by it.

    Told: `events` in the order of their arrival, and `times` when each came (or nothing: then all at `ended`).
    """

    id: int
    client: str
    kind: Kind
    conversation: str
    began: float
    ended: float
    outcome: Outcome = "ok"
    http: int | None = None
    code: str | None = None
    retry_after: float | None = None
    left: bool = False
    silent: bool = False
    key: str | None = None
    content: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    retry_of: int | None = None
    turn_id: str = ""
    message_id: str = ""
    after: str | None = None
    turn: TurnState | None = None
    user_message: Message | None = None
    reply: Message | None = None
    messages: tuple[Message, ...] = ()
    events: tuple[Event, ...] = ()
    times: tuple[float, ...] = ()
    record: Literal["operation"] = "operation"

    @property
    def acknowledged(self) -> bool:
        """Whether its client knows that it happened; a stream's first event says so too, however the stream ended."""
        return self.outcome == "ok" or bool(self.events and self.events[0].type == ACCEPTED)

    @property
    def turn_told(self) -> str:
        """The id of its turn, or "" where none is known."""
        if self.turn is not None:
            return self.turn.id
        return self.turn_id or (self.events[0].turn_id if self.events else "")

    @property
    def position(self) -> Position | None:
        """Where its stream was resumed; None: at the beginning."""
        return parse_event_id(self.after, self.turn_told) if self.after else None

    def time(self, index: int) -> float:
        """When the event at `index` had come."""
        return self.times[index] if self.times else self.ended

    @property
    def known_at(self) -> float:
        """When its client knew that it had happened."""
        return self.time(0) if self.events else self.ended

    def sightings(self) -> Iterator[tuple[Message, float]]:
        """Every message that it told of, and when."""
        for message in (self.user_message, self.reply, *self.messages):
            if message is not None:
                yield message, self.ended
        for index, event in enumerate(self.events):
            if event.type == ACCEPTED or event.type in TERMINAL:
                body = event.data.get("user_message" if event.type == ACCEPTED else "message")
                if body is not None:
                    yield Message.of(body), self.time(index)


@dataclass(frozen=True, slots=True)
class Stored:
    """What the service says of a conversation when all is quiet: its messages (None: it is not there), every turn that
    anybody heard of, and for replies that were asked for their versions, which other one stands in their place."""

    conversation: str
    messages: tuple[Message, ...] | None = None
    turns: tuple[TurnState, ...] = ()
    superseded: dict[str, str | None] = field(default_factory=dict)
    record: Literal["stored"] = "stored"


@dataclass(frozen=True, slots=True)
class Provided:
    """What the provider sent for a turn: the text of each call, in order, as far as it was sent."""

    turn: str
    calls: tuple[str, ...]
    record: Literal["provided"] = "provided"


Record = Annotated[Operation | Stored | Provided, Field(discriminator="record")]
_RECORD: TypeAdapter[Operation | Stored | Provided] = TypeAdapter(Record)


@dataclass(slots=True)
class History:
    """Operations by number, conversations as stored by id, and what the provider sent by turn."""

    operations: list[Operation] = field(default_factory=list)
    stored: dict[str, Stored] = field(default_factory=dict)
    provided: dict[str, Provided] = field(default_factory=dict)

    def add(self, record: Operation | Stored | Provided) -> None:
        if isinstance(record, Operation):
            self.operations.append(record)
        elif isinstance(record, Stored):
            self.stored[record.conversation] = record
        else:
            self.provided[record.turn] = record

    def lines(self) -> Iterator[bytes]:
        """One JSON object a line, without its end."""
        records: list[Operation | Stored | Provided] = [*self.operations]
        records += [*self.stored.values(), *self.provided.values()]
        for record in records:
            yield _RECORD.dump_json(record)

    @classmethod
    def of(cls, lines: Iterable[bytes | str]) -> "History":
        """From such lines. Raises `ValueError` for one that is no record."""
        history = cls()
        for line in lines:
            history.add(_RECORD.validate_json(line))
        return history


def event_of(body: dict[str, Any]) -> Event:
    """From the `data` of a server-sent event."""
    rest = {name: value for name, value in body.items() if name not in ("type", "turn_id", "attempt", "n")}
    return Event(body["turn_id"], body["attempt"], body["n"], body["type"], rest)
