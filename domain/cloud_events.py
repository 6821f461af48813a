"""What the service tells other systems: domain events in the form of CloudEvents 1.0 (JSON format).

An event tells ids, never a message's text: whoever delivers it reads the text as it is stored at that moment, so
nothing that was deleted or masked lives on in a stream. Attributes: https://github.com/cloudevents/spec, version 1.0.2;
`partitionkey` is its partitioning extension and holds what events keep their order for.
"""

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

SPEC_VERSION = "1.0"
SPACE = uuid.UUID("6b9a1f0e-6d0b-5d0c-9a55-2f6c6a0c1e5d")


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """`id`: the same however often the event is told, unique with `source`. `type`: a topic, as `message.received`.
    `key`: the conversation whose events keep their order, else the tenant. `time`: when it happened."""

    id: str
    type: str
    tenant: str
    time: datetime
    key: str
    subject: str | None = None
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        return f"/tenants/{self.tenant}"

    def json(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "specversion": SPEC_VERSION,
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "time": self.time.isoformat().replace("+00:00", "Z"),
            "partitionkey": self.key,
            "datacontenttype": "application/json",
            "data": self.data,
        }
        return body if self.subject is None else {**body, "subject": self.subject}


def event_id(tenant: str, outbox_id: int, at: datetime, type: str) -> str:
    """The id of what a row of the outbox tells. Its time is part of it: a restored backup gives a number again."""
    return "evt_" + uuid.uuid5(SPACE, f"{tenant}/{outbox_id}/{at.timestamp():.6f}/{type}").hex


GAP = "events.gap"
"""Told to a follower alone: events were lost to him, for nobody keeps them any more."""
RENAMED = {"conversation.updated": "conversation.changed"}
OF_A_TURN = ("conversation_id", "turn_id")


@dataclass(frozen=True, slots=True)
class Fact:
    """A row of the outbox: what was committed, and is to be told."""

    id: int
    tenant: str
    topic: str
    payload: dict[str, Any]
    at: datetime


def told(fact: Fact) -> list[CloudEvent]:
    """The events that a row tells, in their order: the same ones however often it is asked."""
    return [_event(fact, type, data, place) for type, data, place in _parts(fact)]


def matches(patterns: Iterable[str], type: str) -> bool:
    """`patterns`: types, beginnings of types as `message.*`, or `*` for all."""
    return any(
        pattern in ("*", type) or (pattern.endswith(".*") and type.startswith(pattern[:-1])) for pattern in patterns
    )


def event_of(body: dict[str, Any]) -> CloudEvent:
    """The event of which `CloudEvent.json` is `body`. Raises `KeyError`, `ValueError`."""
    return CloudEvent(
        id=body["id"],
        type=body["type"],
        tenant=body["source"].removeprefix("/tenants/"),
        time=datetime.fromisoformat(body["time"]),
        key=body["partitionkey"],
        subject=body.get("subject"),
        data=body["data"],
    )


def _parts(fact: Fact) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Type and data of each event, and what tells apart those of one type."""
    payload = fact.payload
    match fact.topic:
        case "turn.completed" | "turn.failed" | "turn.cancelled":
            yield from _of_turn(fact.topic, payload)
        case "message.embedding_created":
            for message in payload["message_ids"]:
                data = {"conversation_id": payload["conversation_id"], "message_id": message}
                yield fact.topic, data, f"/{message}"
        case _:
            yield RENAMED.get(fact.topic, fact.topic), payload, ""


def _of_turn(topic: str, payload: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    turn = {name: payload[name] for name in OF_A_TURN if name in payload}
    asked = {**turn, "message_id": payload.get("user_message_id")}
    if payload.get("intent") is not None:
        yield "intent.classified", {**asked, "intent": payload["intent"]}, ""
    if topic == "turn.completed":
        reply = {name: payload.get(name) for name in ("message_id", "seq", "model")}
        yield "response.generated", {**turn, **reply}, ""
        yield "message.processed", {**asked, "reply_id": payload.get("message_id"), "status": "completed"}, ""
    elif topic == "turn.failed":
        yield "message.failed", {**asked, "reply_id": payload.get("message_id"), "error": payload.get("error")}, ""
    else:
        yield "message.processed", {**asked, "reply_id": payload.get("message_id"), "status": "cancelled"}, ""
    yield topic, payload, ""


def _event(fact: Fact, type: str, data: dict[str, Any], place: str) -> CloudEvent:
    return CloudEvent(
        id=event_id(fact.tenant, fact.id, fact.at, type + place),
        type=type,
        tenant=fact.tenant,
        time=fact.at,
        key=data.get("conversation_id") or fact.tenant,
        subject=data.get(f"{type.partition('.')[0]}_id") or data.get("conversation_id"),
        data=data,
    )
