"""Topics of events for the operator: streams of the whole platform, with groups of consumers and their dead letters."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from domain.queue import DEFAULT_TOPIC, NoSuchTopic, Topic
from serve_app.ingress.answers import Answer, list_json
from serve_app.ingress.auth import Operates
from serve_app.ingress.bodies import body_hash, checked, idempotency_key
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import Problem
from serve_app.ingress.event_bodies import (
    Counted,
    DeadLetterList,
    DeliveryList,
    EventsDone,
    EventsFailed,
    EventsRemoved,
    GroupCreate,
    GroupMade,
    GroupRead,
    GroupReplay,
    RelayStatistics,
    TopicCreate,
    TopicList,
    TopicStatistics,
    TopicView,
    delivery_json,
    figures_json,
    letter_json,
    topic_json,
)
from serve_app.ingress.event_parts import events_of
from serve_app.ingress.params import Limit
from serve_app.ingress.sending import REPLAYED
from storage.event_topics import NewTopic

router = APIRouter(prefix="/api/v1/admin/events", tags=["administration"])
OneTopic = Annotated[str, Path(max_length=64)]
OneGroup = Annotated[str, Path(max_length=64)]
After = Annotated[str | None, Query(pattern="^[0-9]{1,15}-[0-9]{1,15}$")]


@router.get("/statistics", response_model=None, responses={200: {"model": RelayStatistics}})
async def get_statistics(request: Request, who: Operates) -> Response:
    """What waits to be published."""
    lag = await events_of(request).log.lag()
    told = {"object": "events.statistics", "waiting_rows": lag.waiting, "waiting_seconds": round(lag.seconds, 3)}
    return Answer(told)


@router.get("/topics", response_model=None, responses={200: {"model": TopicList}})
async def list_topics(request: Request, who: Operates) -> Response:
    """All topics, in the order of their names."""
    return Answer(list_json([topic_json(topic) for topic in await events_of(request).topics.all()], False))


@router.post(
    "/topics",
    status_code=201,
    response_model=None,
    responses={201: {"model": TopicView}},
    openapi_extra=takes(TopicCreate, creates=True),
)
async def create_topic(request: Request, who: Operates) -> Response:
    """Make a topic of the events whose types a pattern matches, as `message.received`, `turn.*` or `*`."""
    body, key = checked(TopicCreate, await request.body(), strict=True), idempotency_key(request)
    new = NewTopic(Topic(body.name, tuple(body.patterns)), key, body_hash("event-topics", body))
    made, replayed = await events_of(request).topics.make(who, new)
    return Answer(topic_json(made), 201, REPLAYED if replayed else None)


@router.get("/topics/{topic}", response_model=None, responses={200: {"model": TopicStatistics}})
async def get_topic(request: Request, who: Operates, topic: OneTopic) -> Response:
    """A topic, what it holds, and how far its groups are."""
    found = await _topic(request, topic)
    return Answer(figures_json(found, await events_of(request).queue.statistics(topic)))


@router.delete("/topics/{topic}", response_model=None, responses={200: {"model": EventsRemoved}})
async def delete_topic(request: Request, who: Operates, topic: OneTopic) -> Response:
    """Remove a topic with all that it holds."""
    if topic == DEFAULT_TOPIC:
        raise Problem(409, f"the topic {DEFAULT_TOPIC} stays: every event goes there", code="built_in")
    await _topic(request, topic)
    events = events_of(request)
    await events.queue.delete_topic(topic)
    await events.topics.note(who, "event_topic.deleted", topic)
    return Answer({"id": topic, "object": "event_topic", "deleted": True})


@router.post(
    "/topics/{topic}/groups",
    status_code=201,
    response_model=None,
    responses={201: {"model": GroupMade}},
    openapi_extra=takes(GroupCreate),
)
async def create_group(request: Request, who: Operates, topic: OneTopic) -> Response:
    """Make a group of consumers; one that is there stays as it is."""
    body = checked(GroupCreate, await request.body())
    await events_of(request).queue.subscribe(topic, body.name, body.since)
    return Answer({"id": body.name, "object": "event_group", "topic": topic}, 201)


@router.delete("/topics/{topic}/groups/{group}", response_model=None, responses={200: {"model": EventsRemoved}})
async def delete_group(request: Request, who: Operates, topic: OneTopic, group: OneGroup) -> Response:
    await events_of(request).queue.unsubscribe(topic, group)
    return Answer({"id": group, "object": "event_group", "deleted": True})


@router.post(
    "/topics/{topic}/groups/{group}/read",
    response_model=None,
    responses={200: {"model": DeliveryList}},
    openapi_extra=takes(GroupRead),
)
async def read_group(request: Request, who: Operates, topic: OneTopic, group: OneGroup) -> Response:
    """Events for a consumer of the group, which has them for 30 s: acknowledge them until then."""
    body = checked(GroupRead, await request.body())
    found = await events_of(request).queue.read(topic, group, body.consumer, body.limit, body.wait)
    return Answer(list_json([delivery_json(one) for one in found], False))


@router.post(
    "/topics/{topic}/groups/{group}/ack",
    response_model=None,
    responses={200: {"model": Counted}},
    openapi_extra=takes(EventsDone),
)
async def acknowledge(request: Request, who: Operates, topic: OneTopic, group: OneGroup) -> Response:
    """The group is done with these events."""
    body = checked(EventsDone, await request.body())
    count = await events_of(request).queue.acknowledge(topic, group, body.ids)
    return Answer({"object": "events.counted", "count": count, "dead_letters": 0})


@router.post(
    "/topics/{topic}/groups/{group}/nack",
    response_model=None,
    responses={200: {"model": Counted}},
    openapi_extra=takes(EventsFailed),
)
async def reject(request: Request, who: Operates, topic: OneTopic, group: OneGroup) -> Response:
    """These events could not be worked on: each comes again, later each time, and is a dead letter in the end."""
    body = checked(EventsFailed, await request.body())
    died = await events_of(request).queue.reject(topic, group, body.ids, body.error)
    return Answer({"object": "events.counted", "count": len(body.ids), "dead_letters": died})


@router.post(
    "/topics/{topic}/groups/{group}/replay",
    response_model=None,
    responses={200: {"model": GroupMade}},
    openapi_extra=takes(GroupReplay),
)
async def replay(request: Request, who: Operates, topic: OneTopic, group: OneGroup) -> Response:
    """Hand the group again what the topic has from a time on."""
    body = checked(GroupReplay, await request.body())
    events = events_of(request)
    await events.queue.replay(topic, group, body.since)
    await events.topics.note(who, "event_group.replayed", f"{topic}/{group}")
    return Answer({"id": group, "object": "event_group", "topic": topic})


@router.get("/topics/{topic}/dead", response_model=None, responses={200: {"model": DeadLetterList}})
async def list_dead_letters(
    request: Request, who: Operates, topic: OneTopic, after: After = None, limit: Limit = 20
) -> Response:
    """Events that groups gave up, the oldest first."""
    found = await events_of(request).queue.dead_letters(topic, after, limit + 1)
    return Answer(list_json([letter_json(one) for one in found[:limit]], len(found) > limit))


@router.post(
    "/topics/{topic}/dead/redrive",
    response_model=None,
    responses={200: {"model": Counted}},
    openapi_extra=takes(EventsDone),
)
async def redrive(request: Request, who: Operates, topic: OneTopic) -> Response:
    """Hand dead letters to their groups again."""
    body = checked(EventsDone, await request.body())
    events = events_of(request)
    count = await events.queue.send_again(topic, body.ids)
    await events.topics.note(who, "dead_letters.sent_again", topic)
    return Answer({"object": "events.counted", "count": count, "dead_letters": 0})


async def _topic(request: Request, name: str) -> Topic:
    for topic in await events_of(request).topics.all():
        if topic.name == name:
            return topic
    raise NoSuchTopic("there is no such topic")
