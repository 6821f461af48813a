"""A tenant's events as a server-sent stream, resumable by its ids."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from domain.cloud_events import GAP, CloudEvent, matches
from domain.errors import NotFound, Overloaded, Unavailable
from domain.permissions import Permission
from domain.tenant import Caller
from serve_app.ingress import metrics, sse
from serve_app.ingress.auth import authenticated, forbidden, needs
from serve_app.ingress.errors import Problem
from serve_app.ingress.event_feed import EventFeed
from serve_app.ingress.event_parts import events_of
from serve_app.ingress.owned import check_conversation
from serve_app.ingress.params import Written
from serve_app.ingress.parts import Parts, parts_of
from serve_app.ingress.shapes import message_json

router = APIRouter(prefix="/api/v1/events", tags=["events"])
ReadsEvents = Annotated[Caller, needs(Permission.EVENTS_READ)]
Since = Annotated[datetime | None, Written, Query(description="RFC 3339: events from then on, as far as they are kept")]
TICK = 1.0  # seconds between looks at whether the stream should go on
REMEMBERED = 1000  # conversations whose user a stream knows
Piece = tuple[bytes, bool]


@dataclass(slots=True)
class EventView:
    """What of a tenant's events a caller wants and may see, and how each is given out."""

    parts: Parts
    caller: Caller
    topics: tuple[str, ...]
    conversation: str | None
    with_message: bool
    _users: dict[str, str | None] = field(default_factory=dict)

    async def shows(self, event: CloudEvent) -> bool:
        if event.type == GAP:
            return True
        if not matches(self.topics, event.type) or self.conversation not in (None, event.key):
            return False
        return self.caller.only_user is None or await self._user(event) == self.caller.only_user

    async def body(self, event: CloudEvent) -> dict[str, Any]:
        """As CloudEvent in JSON; with the message as it is stored now, null where it is gone."""
        message_id = event.data.get("message_id") if self.with_message else None
        if message_id is None:
            return event.json()
        try:
            _, found, _ = await self.parts.reader.message(self.caller.tenant, message_id)
            message = message_json(found)
        except NotFound:
            message = None
        return replace(event, data={**event.data, "message": message}).json()

    async def _user(self, event: CloudEvent) -> str | None:
        """Whose conversation it tells of; None for what is of no conversation, or of one that nobody knew before it was
        gone."""
        if event.key == event.tenant:
            return None
        if event.type == "conversation.changed":
            self._users.pop(event.key, None)
        if event.key not in self._users:
            try:
                user = await self.parts.reader.user_of(event.tenant, "conversation", event.key)
            except NotFound:
                user = None
            if len(self._users) >= REMEMBERED:
                self._users.pop(next(iter(self._users)))
            self._users[event.key] = user
        return self._users[event.key]


@router.get(
    "",
    response_model=None,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Events as CloudEvents 1.0"}},
)
async def get_events(
    request: Request,
    who: ReadsEvents,
    topics: Annotated[str, Query(max_length=2000, description="types, as `message.received,turn.*`")] = "*",
    conversation_id: str | None = None,
    after: str | None = None,
    since: Since = None,
    include: Literal["message"] | None = None,
    seconds: Annotated[float | None, Query(ge=0, le=86_400, description="after which the stream ends")] = None,
) -> Response:
    """The tenant's events from now on, from `since` on, or right after the one that `Last-Event-ID` (or `after`) names.

    Each comes at least once, in the order of its conversation; `id` in its data is the same each time. Who may see its
    own conversations alone is told of these.
    """
    if include is not None and Permission.CONVERSATIONS_READ not in who.permissions:
        raise forbidden(Permission.CONVERSATIONS_READ)
    if conversation_id is not None:
        await check_conversation(request, who, conversation_id)
    wanted = tuple(part.strip() for part in topics.split(",") if part.strip()) or ("*",)
    view = EventView(parts_of(request), who, wanted, conversation_id, include is not None)
    start = request.headers.get("last-event-id") or after
    return sse.EventStream(_pieces(request, view, events_of(request).feed, start, since, seconds))


async def _pieces(
    request: Request, view: EventView, feed: EventFeed, after: str | None, since: datetime | None, seconds: float | None
) -> AsyncGenerator[Piece]:
    clock, keep_alive = asyncio.get_running_loop().time, view.parts.settings.keep_alive
    spoke = checked = clock()
    end = None if seconds is None else spoke + seconds
    yield b": these are events\n\n", False
    unsaid: str | None = None  # the last id that the client was not told
    async with aclosing(_ticking(feed.follow(view.caller.tenant, ("*",), after, since), end)) as source:
        try:
            async for found in source:
                if found is not None:
                    unsaid, event = found
                    if await view.shows(event):
                        yield _event(unsaid, event.type, await view.body(event)), False
                        spoke, unsaid = clock(), None
                if not view.parts.ready():
                    yield b": the service stops, come again\n\n", False
                    return
                if clock() - spoke >= keep_alive:
                    yield _silence(unsaid), False
                    spoke, unsaid = clock(), None
                if clock() - checked >= keep_alive:
                    if (await authenticated(request)).permissions != view.caller.permissions:
                        yield b": what you may do has changed, come again\n\n", False
                        return
                    checked = clock()
        except Overloaded as error:
            metrics.SLOW_READERS.inc()
            yield f": {error}\n\n".encode(), False
        except Problem:
            yield b": this credential counts no more\n\n", False
        except Unavailable as error:
            yield f": {error}\n\n".encode(), False
    if unsaid is not None:
        yield _silence(unsaid), False


async def _ticking(
    source: AsyncGenerator[tuple[str, CloudEvent]], end: float | None
) -> AsyncGenerator[tuple[str, CloudEvent] | None]:
    """What `source` gives, and None every second in which it gives nothing; until the time `end`."""
    clock = asyncio.get_running_loop().time
    async with aclosing(source):
        waiting = asyncio.ensure_future(anext(source))
        try:
            while True:
                left = TICK if end is None else max(min(TICK, end - clock()), 0)
                await asyncio.wait({waiting}, timeout=left)
                if waiting.done():
                    found = waiting.result()
                    waiting = asyncio.ensure_future(anext(source))
                    yield found
                elif end is not None and clock() >= end:
                    return
                else:
                    yield None
        finally:
            waiting.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await waiting


def _event(place: str, type: str, body: dict[str, Any]) -> bytes:
    return f"id: {place}\nevent: {type}\ndata: ".encode() + orjson.dumps(body) + b"\n\n"


def _silence(place: str | None) -> bytes:
    """A comment; and the id of what was not shown: a client that comes again need not read it anew."""
    return sse.KEEP_ALIVE if place is None else f"id: {place}\n".encode() + sse.KEEP_ALIVE
