"""Turns that are asked for: `POST /conversations/{id}/messages`, and `POST /messages/{id}/regenerate`."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from domain.commands import Accepted, Ended, Send
from domain.conversation import ConversationKey
from domain.events import DELTA, Event, Position
from domain.ids import new_id
from serve_app.ingress import sse
from serve_app.ingress.allowed import may_name
from serve_app.ingress.answer_models import TurnAnswer
from serve_app.ingress.auth import BeginsTurns
from serve_app.ingress.bodies import MessageRegenerate, MessageSend, body_hash, check_models, checked, idempotency_key
from serve_app.ingress.context import visit_of
from serve_app.ingress.documents import takes
from serve_app.ingress.params import key_of, known
from serve_app.ingress.parts import Parts, parts_of
from serve_app.ingress.replay import accepted
from serve_app.ingress.sending import REPLAYED, beginning, ended_answer, hand_over
from serve_app.ingress.streams import TurnStream

router = APIRouter(prefix="/api/v1", tags=["messages"])
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": TurnAnswer,
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
        "description": "The turn, once it has ended; with `stream` its events as they come",
    }
}


@router.post(
    "/conversations/{conversation_id}/messages",
    response_model=None,
    responses=_ANSWERS,
    openapi_extra=takes(MessageSend, creates=True),
)
async def send_message(request: Request, caller: BeginsTurns, conversation_id: str) -> Response:
    """Send a message and get the reply, at once or as a stream. Disconnecting does not stop the turn.

    With `models` several answer side by side, and `keep` says whose answer becomes the reply.
    """
    key = key_of(caller, conversation_id)
    visit_of(request.scope).conversation = conversation_id
    body = checked(MessageSend, await request.body(), strict=True)
    check_models(body)
    may_name(caller, body.model, *(body.models or ()))
    send = new_send(key, caller.key_id, idempotency_key(request), body, body.stream)
    return await _answer(request, send, body.stream)


@router.post(
    "/messages/{message_id}/regenerate",
    response_model=None,
    responses=_ANSWERS,
    openapi_extra=takes(MessageRegenerate, required=False, creates=True),
)
async def regenerate(request: Request, caller: BeginsTurns, message_id: str) -> Response:
    """Make a reply anew: a turn of its own, without a user message. It answers as a sent message does.

    `message_id`: a reply, or the message it answers. The new reply, if it completes, takes the place of the others in
    later prompts; they stay readable (`GET /messages/{id}/versions`).
    """
    known(message_id, "msg", "message")
    body = checked(MessageRegenerate, await request.body() or b"{}", strict=True)
    may_name(caller, body.model)
    idempotency = idempotency_key(request)
    conversation_id = await parts_of(request).reader.conversation_of(caller.tenant, message_id)
    visit_of(request.scope).conversation = conversation_id
    turn_id = new_id("turn")
    send = Send(
        key=key_of(caller, conversation_id),
        caller=caller.key_id,
        idempotency_key=idempotency or f"auto-{turn_id}",
        body_hash=body_hash(f"{message_id}/regenerate", body),
        turn_id=turn_id,
        message_id="",
        content="",
        model=body.model,
        parameters=body.parameters.model_dump(exclude_none=True),
        on_busy=body.on_busy,
        live=body.stream,
        wait=not body.stream,
        regenerates=message_id,
    )
    return await _answer(request, send, body.stream)


def new_send(key: ConversationKey, caller: str, idempotency: str | None, body: MessageSend, streamed: bool) -> Send:
    """The message as it is given to its host, with the ids of a new turn."""
    turn_id = new_id("turn")
    return Send(
        key=key,
        caller=caller,
        idempotency_key=idempotency or f"auto-{turn_id}",
        body_hash=body_hash(f"{key.conversation}/messages", body),
        turn_id=turn_id,
        message_id=new_id("msg"),
        content=body.content,
        model=body.model,
        parameters=body.parameters.model_dump(exclude_none=True),
        on_busy=body.on_busy,
        metadata=body.metadata,
        live=streamed,
        wait=not streamed,
        models=tuple(body.models or ()),
        keep=body.keep or "first",
    )


async def _answer(request: Request, send: Send, streamed: bool) -> Response:
    parts, visit = parts_of(request), visit_of(request.scope)
    visit.turn = send.turn_id
    result = await hand_over(request, send)
    visit.turn = result.turn.id
    if streamed:
        headers = REPLAYED if result.replayed else None
        return sse.EventStream(_pieces(parts, send.key.tenant, result), headers)
    assert isinstance(result, Ended)
    return ended_answer(result)


async def _pieces(parts: Parts, tenant: str, result: Accepted | Ended) -> AsyncIterator[tuple[bytes, bool]]:
    turn_id = result.turn.id
    if isinstance(result, Accepted):
        first = accepted(turn_id, result.user_message, result.journalled)
        yield sse.lines([first]), False
        stream = TurnStream(parts, tenant, turn_id, beginning(result), result.journalled)
    else:
        stream = TurnStream(parts, tenant, turn_id, Position(), journalled=False)
    async for piece in event_pieces(stream):
        yield piece


async def event_pieces(stream: TurnStream) -> AsyncIterator[tuple[bytes, bool]]:
    async for batch in stream.batches():
        yield sse.lines(batch), _has_text(batch)


def _has_text(batch: list[Event]) -> bool:
    return any(event.type == DELTA for event in batch)
