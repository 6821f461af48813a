"""A completion that is a turn of a conversation: the server's history is used, and no client's leaving stops it."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response

from domain import events
from domain.commands import Accepted, Ended, Send
from domain.events import Event, Position
from domain.ids import new_id
from domain.message import Message, Usage
from domain.model import AUTO
from domain.tenant import Caller
from domain.turn import TurnStatus
from serve_app.ingress import sse
from serve_app.ingress.allowed import allowed_route
from serve_app.ingress.answers import Answer
from serve_app.ingress.bodies import body_hash, idempotency_key
from serve_app.ingress.chat_choice import refuse_if_nobody, refuse_unable
from serve_app.ingress.completions import Completion
from serve_app.ingress.context import visit_of
from serve_app.ingress.errors import Problem, failed_turn
from serve_app.ingress.lookahead import Lookahead
from serve_app.ingress.openai_bodies import LONGEST, ChatCompletion
from serve_app.ingress.params import key_of
from serve_app.ingress.parts import Parts, parts_of
from serve_app.ingress.sending import REPLAYED, hand_over
from serve_app.ingress.streams import TurnStream

_RESET = {"message": "the answer begins anew; ask again", "type": "provider_error", "code": "turn_reset"}
_TELLING = events.TERMINAL | {events.MODEL, events.DELTA, events.RESET}


async def complete_in_conversation(
    request: Request, caller: Caller, body: ChatCompletion, conversation_id: str
) -> Response:
    parts, visit = parts_of(request), visit_of(request.scope)
    key = key_of(caller, conversation_id)
    visit.conversation = conversation_id
    content = _last_user_message(body)
    route = await allowed_route(parts, caller, body.model)
    if route is not None:
        refuse_unable(route, body, [])
    elif body.wants_json:
        await refuse_if_nobody(parts, caller, "json", "response_format")
    idempotency, turn_id = idempotency_key(request), new_id("turn")
    metadata = {name: value for name, value in (body.metadata or {}).items() if name != "conversation_id"}
    visit.turn = turn_id
    result = await hand_over(
        request,
        Send(
            key=key,
            caller=caller.key_id,
            idempotency_key=idempotency or f"auto-{turn_id}",
            body_hash=body_hash(f"{conversation_id}/completions", body),
            turn_id=turn_id,
            message_id=new_id("msg"),
            content=content,
            model=body.model,
            parameters=body.parameters(),
            metadata=metadata,
            live=bool(body.stream),
            understand=body.model == AUTO,
            wait=not body.stream,
        ),
    )
    visit.turn = result.turn.id
    headers = {"x-brain-turn": result.turn.id, **(REPLAYED if result.replayed else {})}
    if body.stream:
        return await _streamed(parts, caller.tenant, body, result, headers)
    assert isinstance(result, Ended)
    return _whole(body, result, headers)


def _whole(body: ChatCompletion, ended: Ended, headers: dict[str, str]) -> Response:
    model = ended.turn.model or body.model
    headers = {**headers, "x-brain-model": model}
    if ended.turn.status is TurnStatus.FAILED:
        return failed_turn(ended.turn, headers)
    completion = Completion(ended.turn.id, model, ended.turn.created_at.timestamp())
    text = ended.message.content if ended.message else ""
    return Answer(completion.whole(text, "stop", ended.turn.usage), 200, headers)


async def _streamed(
    parts: Parts, tenant: str, body: ChatCompletion, result: Accepted | Ended, headers: dict[str, str]
) -> Response:
    """For `auto` the head of the answer waits, within bounds, for the choice of the model."""
    turn = result.turn
    follow = isinstance(result, Accepted) and result.journalled
    source = TurnStream(parts, tenant, turn.id, Position(turn.attempt, 1), follow).batches()
    ahead: Lookahead[list[Event]] = Lookahead(source)
    model = turn.model or (body.model if body.model != AUTO else None)
    if model is None:
        try:
            seen = await ahead.until(_tells, parts.settings.model_header_wait)
        except asyncio.CancelledError:
            await ahead.close()
            raise
        model = next((event.data["model"] for batch in seen for event in batch if event.type == events.MODEL), None)
    if model is not None:
        headers = {**headers, "x-brain-model": model}
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    completion = Completion(turn.id, model or AUTO, turn.created_at.timestamp(), with_usage)
    return sse.EventStream(_pieces(ahead, completion), headers)


def _tells(batch: list[Event]) -> bool:
    return any(event.type in _TELLING for event in batch)


async def _pieces(ahead: Lookahead[list[Event]], completion: Completion) -> AsyncIterator[tuple[bytes, bool]]:
    try:
        yield completion.opening(), False
        async for batch in ahead.items():
            told, over = _until_end(batch)
            written = b"".join(line for line in (_line(event, completion) for event in told) if line is not None)
            if written or not batch:
                yield written or sse.KEEP_ALIVE, any(event.type == events.DELTA for event in told)
            if over:
                return
    finally:
        await ahead.close()


def _until_end(batch: list[Event]) -> tuple[list[Event], bool]:
    """The events up to one that ends the answer, and whether there is one: a reset ends it too."""
    for index, event in enumerate(batch):
        if event.type in events.TERMINAL or event.type == events.RESET:
            return batch[: index + 1], True
    return batch, False


def _line(event: Event, completion: Completion) -> bytes | None:
    if event.type == events.DELTA:
        return completion.delta(event.data["text"])
    if event.type == events.MODEL:
        completion.named(event.data["model"])
    elif event.type in (events.COMPLETED, events.CANCELLED):
        message = event.data.get("message") and Message.model_validate(event.data["message"])
        usage = event.data.get("usage") or (message and message.usage)
        counted = None if usage is None else Usage.model_validate(usage)
        return completion.closing(message.content if message else "", "stop", counted)
    elif event.type == events.FAILED:
        return completion.failure(event.data["error"])
    elif event.type == events.RESET:
        return completion.failure(_RESET)
    return None


def _last_user_message(body: ChatCompletion) -> str:
    said = [message["content"] for message in body.plain_messages() if message["role"] == "user"]
    if not said:
        raise Problem(400, "messages: one of them must come from the user", "messages")
    if not 1 <= len(said[-1]) <= LONGEST:
        raise Problem(400, f"messages: the last message must have 1 to {LONGEST} characters", "messages")
    return said[-1]
