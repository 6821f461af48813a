"""What a turn's owner says in its stream before and after the generation."""

from typing import Any

from actors.parts import Parts
from actors.turn import LiveTurn
from domain.commands import Ended
from domain.errors import BrainError, JournalUnavailable, ModelNotFound
from domain.events import ACCEPTED, CANCELLED, COMPLETED, FAILED, RESET
from domain.generation import Outcome
from domain.turn import TurnStatus

TERMINAL = {TurnStatus.COMPLETED: COMPLETED, TurnStatus.FAILED: FAILED, TurnStatus.CANCELLED: CANCELLED}
Events = list[tuple[str, dict[str, Any]]]


def opening(live: LiveTurn) -> Events:
    """The first event of the current attempt."""
    if live.attempt == 1:
        return [(ACCEPTED, {"user_message": live.asked.user_message.model_dump(mode="json")})]
    return [(RESET, {"reason": "the generation was lost; another attempt begins"})]


def failure(error: BrainError, turn_id: str) -> Outcome:
    """The outcome of a turn that could not be asked."""
    body = {"message": str(error), "type": error.type, "param": turn_id, "code": error.code}
    if isinstance(error, ModelNotFound):
        body["param"] = "model"
    return Outcome("failed", error=body, status=error.status)


async def tell_end(parts: Parts, tenant: str, ended: Ended, after: int) -> None:
    """The terminal event, after its commit. If the journal is away, readers find the end in Postgres."""
    kind = TERMINAL[ended.turn.status]
    message = ended.message.model_dump(mode="json") if ended.message else None
    data: dict[str, Any] = {"message": message}
    if kind == COMPLETED and ended.message is not None:
        data |= {"usage": message and message["usage"], "cost_usd": ended.message.cost_usd}
    if kind == FAILED:
        data = {"error": ended.turn.error, "message": message}
    try:
        await parts.journal.append(tenant, ended.turn.id, ended.turn.attempt, [(kind, data)], after)
    except JournalUnavailable:
        return
