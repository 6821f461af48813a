"""What a row of the outbox is to whom: the events that webhooks are sent, and what channels show of a conversation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from domain.channels import PUSHED, Binding, OutboundType
from domain.cloud_events import Fact, event_id, matches, told

NO_STREAM = ""  # of events that are no conversation's


@dataclass(frozen=True, slots=True)
class Listener:
    """A webhook, as far as it matters for what it is sent. `since`: what happened before is not told."""

    id: str
    events: tuple[str, ...]
    since: datetime


@dataclass(frozen=True, slots=True)
class Origin:
    """The channel that a message came in on, and the id that it has there."""

    channel: str
    external_id: str


@dataclass(frozen=True, slots=True)
class Planned:
    """A delivery to write. `stream`: within which it keeps its order."""

    webhook: str | None
    channel: str | None
    stream: str
    event_id: str
    type: str
    event: dict[str, Any]
    conversation: str | None
    message: str | None


def for_webhooks(fact: Fact, listeners: Sequence[Listener]) -> Iterator[Planned]:
    for event in told(fact):
        for listener in listeners:
            if listener.since <= fact.at and matches(listener.events, event.type):
                conversation = event.data.get("conversation_id")
                stream = conversation or NO_STREAM
                message = event.data.get("message_id")
                yield Planned(listener.id, None, stream, event.id, event.type, event.json(), conversation, message)


def for_channels(fact: Fact, bindings: Sequence[Binding], origins: Mapping[str, Origin]) -> Iterator[Planned]:
    """`bindings`: of the row's conversation. `origins`: by the message's id."""
    shown = _shown(fact)
    if shown is None:
        return
    type, data = shown
    message = data.get("message_id")
    origin = origins.get(message or "") if fact.topic == "message.received" else None
    for binding in bindings:
        if binding.kind not in PUSHED or binding.created_at > fact.at:
            continue
        own = origin is not None and origin.channel == binding.channel
        told: dict[str, Any] = {
            "thread": binding.thread,
            "user": binding.user,
            "at": fact.at.isoformat(),
            "data": {**data, "status": "delivered"} if own else data,
            "in_reply_to": origin.external_id if own and origin is not None else None,
        }
        kind: OutboundType = "receipt" if own else type
        id = event_id(fact.tenant, fact.id, fact.at, f"channel.{kind}")
        yield Planned(None, binding.channel, binding.conversation, id, kind, told, binding.conversation, message)


def _shown(fact: Fact) -> tuple[OutboundType, dict[str, Any]] | None:
    """What people see of it. System messages are said to models, not to people."""
    ids = {name: fact.payload.get(name) for name in ("message_id", "turn_id")}
    match fact.topic:
        case "message.received":
            return "message", ids
        case "turn.completed" | "turn.cancelled":
            return ("message", ids) if ids["message_id"] else None
        case "turn.failed":
            return (
                ("message", ids)
                if ids["message_id"]
                else ("error", {"turn_id": ids["turn_id"], "error": fact.payload.get("error")})
            )
        case "message.deleted":
            return "deleted", {"message_id": ids["message_id"]}
        case "conversation.ended":
            return "ended", {}
    return None
