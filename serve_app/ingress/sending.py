"""Handing a message to its conversation's host, and the answer of a turn that was waited for."""

from domain.commands import Accepted, Ended, Send
from domain.errors import BrainError, CommitUnknown, ModelNotFound, NotFound, Overloaded, Retryable
from domain.events import Position
from domain.turn import TurnStatus
from serve_app.ingress.answers import Answer
from serve_app.ingress.errors import AfterAcceptance, Problem, failed_turn
from serve_app.ingress.parts import Parts
from serve_app.ingress.shapes import message_json, turn_json

REPLAYED = {"idempotent-replayed": "true"}


async def hand_over(parts: Parts, send: Send) -> Accepted | Ended:
    """As `Hosts.send`. An error that came after the turn was accepted is raised as `AfterAcceptance`."""
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
