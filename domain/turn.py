"""A turn: one user message and the way to its one reply. Every move between its states stands in `MOVES`."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, Field

from domain.errors import IllegalMove
from domain.message import Usage

OnBusy = Literal["queue", "reject", "interrupt"]
MAX_ATTEMPTS = 3


class TurnStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self not in (TurnStatus.QUEUED, TurnStatus.RUNNING)


class TurnMove(StrEnum):
    START = "start"
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"


MOVES: dict[tuple[TurnStatus, TurnMove], TurnStatus] = {
    (TurnStatus.QUEUED, TurnMove.START): TurnStatus.RUNNING,
    (TurnStatus.QUEUED, TurnMove.CANCEL): TurnStatus.CANCELLED,
    (TurnStatus.QUEUED, TurnMove.FAIL): TurnStatus.FAILED,
    (TurnStatus.RUNNING, TurnMove.COMPLETE): TurnStatus.COMPLETED,
    (TurnStatus.RUNNING, TurnMove.FAIL): TurnStatus.FAILED,
    (TurnStatus.RUNNING, TurnMove.CANCEL): TurnStatus.CANCELLED,
}


def advance(status: TurnStatus, move: TurnMove) -> TurnStatus:
    """The state after `move`; raises `IllegalMove` where the table has none. The SQL repeats this guard."""
    try:
        return MOVES[status, move]
    except KeyError:
        raise IllegalMove(f"a {status} turn cannot {move}") from None


class Parameters(BaseModel):
    """What a caller may ask of the model; absent fields are left to the model's defaults."""

    model_config = {"extra": "forbid"}

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    stop: str | list[str] | None = None
    seed: int | None = None


class Turn(BaseModel):
    """A turn (API.md). `error` is the body of an API error, for a failed turn."""

    id: str
    object: Literal["turn"] = "turn"
    conversation_id: str
    status: TurnStatus
    attempt: int = 1
    model: str | None = None
    error: dict[str, Any] | None = None
    usage: Usage | None = None
    created_at: datetime
    completed_at: datetime | None = None
