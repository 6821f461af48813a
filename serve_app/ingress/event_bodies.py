"""Bodies and answers of the operator's routes for events."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from domain.queue import DeadLetter, Delivered, Topic, TopicFigures
from serve_app.ingress.bodies import Native
from serve_app.ingress.shapes import Json, rfc3339
from serve_app.ingress.tenant_bodies import Ends as Moment

Name = Annotated[str, Field(pattern="^[a-z][a-z0-9_.-]{0,63}$")]
Pattern = Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9_]*(\.[a-z0-9_]+)*(\.\*)?)$", max_length=128)]
Ids = Annotated[list[Annotated[str, Field(pattern="^[0-9]{1,15}-[0-9]{1,15}$")]], Field(min_length=1, max_length=1000)]


class TopicCreate(Native):
    name: Name
    patterns: Annotated[list[Pattern], Field(min_length=1, max_length=32)]


class GroupCreate(Native):
    """`since`: it is handed what the topic has from then on; else what comes from now on."""

    name: Name
    since: Moment | None = None


class GroupRead(Native):
    """`wait`: seconds, until the first event."""

    consumer: Name = "consumer"
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    wait: Annotated[float, Field(ge=0, le=20, strict=False)] = 0


class EventsDone(Native):
    ids: Ids


class EventsFailed(Native):
    ids: Ids
    error: Annotated[str, Field(max_length=2000)] = ""


class GroupReplay(Native):
    since: Moment


class TopicView(BaseModel):
    id: str
    object: Literal["event_topic"] = "event_topic"
    name: str
    patterns: list[str]


class GroupView(BaseModel):
    name: str
    pending: int
    retrying: int
    consumers: int
    last: str


class TopicStatistics(TopicView):
    length: int
    bytes: int
    dead_letters: int
    first: str | None
    last: str | None
    groups: list[GroupView]


class _ListOf(BaseModel):
    object: Literal["list"] = "list"
    first_id: str | None
    last_id: str | None
    has_more: bool = False


class TopicList(_ListOf):
    data: list[TopicView]


class DeliveryView(BaseModel):
    id: str
    object: Literal["event_delivery"] = "event_delivery"
    delivery: int
    event: dict[str, Any]


class DeliveryList(_ListOf):
    data: list[DeliveryView]


class DeadLetterView(BaseModel):
    id: str
    object: Literal["dead_letter"] = "dead_letter"
    group: str
    error: str
    deliveries: int
    at: datetime
    event: dict[str, Any]


class DeadLetterList(_ListOf):
    data: list[DeadLetterView]


class Counted(BaseModel):
    """How many of the ids counted; `dead_letters`: of these, those that were given up."""

    object: Literal["events.counted"] = "events.counted"
    count: int
    dead_letters: int = 0


class RelayStatistics(BaseModel):
    object: Literal["events.statistics"] = "events.statistics"
    waiting_rows: int
    waiting_seconds: float


class GroupMade(BaseModel):
    id: str
    object: Literal["event_group"] = "event_group"
    topic: str


class EventsRemoved(BaseModel):
    id: str
    object: Literal["event_topic", "event_group"]
    deleted: Literal[True] = True


def topic_json(topic: Topic) -> Json:
    return {"id": topic.name, "object": "event_topic", "name": topic.name, "patterns": list(topic.patterns)}


def figures_json(topic: Topic, told: TopicFigures) -> Json:
    return {
        **topic_json(topic),
        "length": told.length,
        "bytes": told.bytes,
        "dead_letters": told.dead,
        "first": told.first,
        "last": told.last,
        "groups": [
            {
                "name": group.name,
                "pending": group.pending,
                "retrying": group.retrying,
                "consumers": group.consumers,
                "last": group.last,
            }
            for group in told.groups
        ],
    }


def delivery_json(one: Delivered) -> Json:
    return {"id": one.id, "object": "event_delivery", "delivery": one.delivery, "event": one.event.json()}


def letter_json(one: DeadLetter) -> Json:
    return {
        "id": one.id,
        "object": "dead_letter",
        "group": one.group,
        "error": one.error,
        "deliveries": one.deliveries,
        "at": rfc3339(one.at),
        "event": one.event.json(),
    }
