"""Turns: state, events, cancellation, trace."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from domain.conversation import ConversationKey
from domain.errors import BrainError
from domain.events import Position, parse_event_id
from domain.turn import Turn
from serve_app.ingress import sse
from serve_app.ingress.answers import Answer
from serve_app.ingress.auth import ReadsConversations, Sends
from serve_app.ingress.context import visit_of
from serve_app.ingress.errors import Problem
from serve_app.ingress.params import known
from serve_app.ingress.parts import Parts, parts_of
from serve_app.ingress.replay import accepted, events_after
from serve_app.ingress.sends import event_pieces
from serve_app.ingress.service_answers import TraceAnswer
from serve_app.ingress.shapes import as_stored, turn_json
from serve_app.ingress.streams import TurnStream
from storage.reader import StoredTurn

router = APIRouter(prefix="/api/v1/turns", tags=["turns"])
_UNKNOWN_TRACE: dict[str, Any] = {
    "intent": None,
    "candidates": [],
    "chosen": None,
    "reason": None,
    "attempts": [],
    "context": None,
    "sources": [],
    "tools": [],
    "tools_left_out": [],
    "timings_ms": {},
}


@router.get("/{turn_id}", response_model=None, responses={200: {"model": Turn}})
async def get_turn(request: Request, who: ReadsConversations, turn_id: str) -> Response:
    _note(request, turn_id)
    return Answer(turn_json(await parts_of(request).reader.turn(who.tenant, turn_id)))


@router.get(
    "/{turn_id}/events",
    response_model=None,
    responses={200: {"content": {"text/event-stream": {}}, "description": "The turn's events"}},
)
async def get_events(request: Request, who: ReadsConversations, turn_id: str, after: str | None = None) -> Response:
    """The turn's events from the beginning, or right after the event that `Last-Event-ID` (or `after`) names."""
    _note(request, turn_id)
    position = _position(request.headers.get("last-event-id") or after, turn_id)
    parts = parts_of(request)
    stored = await parts.reader.stored_turn(who.tenant, turn_id)
    return sse.EventStream(_pieces(parts, who.tenant, stored, position))


@router.post("/{turn_id}/cancel", response_model=None, responses={200: {"model": Turn}})
async def cancel_turn(request: Request, who: Sends, turn_id: str) -> Response:
    """Cancel the turn; one that has ended stays as it is."""
    _note(request, turn_id)
    parts = parts_of(request)
    conversation, status = await parts.reader.request_cancel(who.tenant, turn_id)
    visit_of(request.scope).conversation = conversation
    if not status.ended:
        with suppress(BrainError, TimeoutError):
            async with asyncio.timeout(parts.settings.cancel_wait):
                await parts.hosts.cancel(ConversationKey(who.tenant, conversation), turn_id)
    return Answer(turn_json(await parts.reader.turn(who.tenant, turn_id)))


@router.get("/{turn_id}/trace", response_model=None, responses={200: {"model": TraceAnswer}})
async def get_trace(request: Request, who: ReadsConversations, turn_id: str) -> Response:
    """Why the turn went as it did: models considered, calls made, what the prompt held. Empty while it runs."""
    _note(request, turn_id)
    trace = await parts_of(request).reader.trace(who.tenant, turn_id)
    return Answer({"turn_id": turn_id, **_UNKNOWN_TRACE, **as_stored(trace or {})})


async def _pieces(
    parts: Parts, tenant: str, stored: StoredTurn, given: Position | None
) -> AsyncIterator[tuple[bytes, bool]]:
    turn, position = stored.turn, given or Position()
    if turn.status.ended:
        rest = events_after(stored, position)
        if rest:
            yield sse.lines(rest), False
        return
    if given is None:
        yield sse.lines([accepted(turn.id, stored.user_message)]), False
        position = Position(1, 1)
    if position.attempt < turn.attempt:
        position = Position(turn.attempt, 0)
    async for piece in event_pieces(TurnStream(parts, tenant, turn.id, position)):
        yield piece


def _position(value: str | None, turn_id: str) -> Position | None:
    if not value:
        return None
    position = parse_event_id(value, turn_id)
    if position is None:
        raise Problem(400, "this is not the id of an event of this turn", "after", "invalid_event_id")
    return position


def _note(request: Request, turn_id: str) -> None:
    visit_of(request.scope).turn = known(turn_id, "turn", "turn")
