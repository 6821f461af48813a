"""Handing a message to its conversation's host, and the answer of a turn that was waited for."""

from asyncio import CancelledError

from fastapi import Request

from domain.commands import Accepted, Ended, Send
from domain.errors import BrainError, CommitUnknown, ModelNotFound, NotFound, Overloaded, Retryable
from domain.events import Position
from domain.turn import TurnStatus
from serve_app.ingress.admission import Refused
from serve_app.ingress.answers import Answer
from serve_app.ingress.bodies import idempotency_key
from serve_app.ingress.context import visit_of
from serve_app.ingress.errors import AfterAcceptance, Problem, failed_turn
from serve_app.ingress.limiter import Entry
from serve_app.ingress.limiting import used
from serve_app.ingress.parts import Parts, admit, parts_of
from serve_app.ingress.shapes import message_json, turn_json

REPLAYED = {"idempotent-replayed": "true"}


async def hand_over(request: Request, send: Send) -> Accepted | Ended:
    """As `Hosts.send`, through the gate. An error that came after the turn was accepted is raised as
    `AfterAcceptance`."""
    parts = parts_of(request)
    await _admit(request, parts, send)
    result = await _limited(visit_of(request.scope).entry, parts, send)
    behind = isinstance(result, Ended) or result.replayed or result.turn.status is TurnStatus.QUEUED
    if behind and (admitted := visit_of(request.scope).admitted) is not None:
        admitted.measured = False  # what it waits for is another turn of its conversation, or nothing
    return result


async def _admit(request: Request, parts: Parts, send: Send) -> None:
    """A key is looked up before the gate refuses: what was accepted once is answered."""
    try:
        admit(request, send.key.tenant, send.model)
    except Refused:
        if idempotency_key(request) is None:
            raise
        if not await parts.reader.key_is_known(send.key.tenant, send.caller, send.idempotency_key):
            raise


async def _limited(entry: Entry | None, parts: Parts, send: Send) -> Accepted | Ended:
    """As `_sent`. What the request took of its caller's limits goes with the turn, also where that stands unheard."""
    if entry is None:
        return await _sent(parts, send)
    entry.begins(send.turn_id)
    try:
        result = await _sent(parts, send)
    except (AfterAcceptance, CancelledError):
        raise
    except Exception:
        entry.begins_none()
        raise
    if result.replayed:
        entry.begins_none()
        await entry.ended(0)
    elif isinstance(result, Ended):
        await entry.ended(used(result.turn.usage))
    return result


async def _sent(parts: Parts, send: Send) -> Accepted | Ended:
    try:
        return await parts.hosts.send(send)
    except Overloaded:
        raise
    except ModelNotFound as error:
        raise Problem(404, str(error), "model", error.code) from None
    except Retryable as error:
        if await _stands(parts, send, isinstance(error, CommitUnknown)):
            raise AfterAcceptance(error, send.turn_id) from error
        raise


async def _stands(parts: Parts, send: Send, otherwise: bool) -> bool:
    try:
        await parts.reader.turn_state(send.key.tenant, send.turn_id)
    except NotFound:
        return False
    except BrainError:
        return otherwise
    return True


def ended_answer(ended: Ended) -> Answer:
    headers = REPLAYED if ended.replayed else {}
    if ended.turn.status is TurnStatus.FAILED:
        return failed_turn(ended.turn, headers)
    content = {
        "turn": turn_json(ended.turn),
        "user_message": None if ended.user_message is None else message_json(ended.user_message),
        "message": None if ended.message is None else message_json(ended.message),
    }
    return Answer(content, 200, headers)


def beginning(result: Accepted | Ended) -> Position:
    """Where a stream of this turn begins that has told its `turn.accepted` already."""
    return Position(1, 1) if result.turn.attempt == 1 else Position(result.turn.attempt, 0)
