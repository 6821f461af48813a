"""A turn in the hands of its owner: what it has said in its stream so far, and who waits for its end."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from domain.commands import Accepted, Ended, UnfinishedTurn
from domain.events import ACCEPTED, Layout
from domain.generation import GenerationRequest, Outcome
from domain.message import Intent
from domain.turn import TurnStatus


@dataclass(eq=False, slots=True)
class LiveTurn:
    """`n` is the last event number that its owner knows of; `said` are the owner's own events by number."""

    asked: UnfinishedTurn
    status: TurnStatus
    attempt: int
    done: asyncio.Future[Ended]
    opened: asyncio.Future[bool]
    n: int = 0
    said: dict[int, dict[str, Any]] = field(default_factory=dict)
    cancelled: bool = False
    task: asyncio.Task[None] | None = None
    request: GenerationRequest | None = None
    intent: Intent | None = None
    trace: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    reply_id: str = ""

    @classmethod
    def of(cls, asked: UnfinishedTurn) -> "LiveTurn":
        loop = asyncio.get_running_loop()
        live = cls(asked, asked.turn.status, asked.turn.attempt, loop.create_future(), loop.create_future())
        live.cancelled = asked.cancel_requested
        live.done.add_done_callback(_seen)  # nobody may be waiting for it
        return live

    @property
    def id(self) -> str:
        return self.asked.turn.id

    def accepted(self, replayed: bool, journalled: bool) -> Accepted:
        turn = self.asked.turn.model_copy(update={"status": self.status, "attempt": self.attempt})
        return Accepted(turn, self.asked.user_message, replayed, journalled)

    def note(self, first: int, events: list[tuple[str, dict[str, Any]]]) -> None:
        """Remember that these events stand in the journal from number `first` on."""
        for n, (kind, data) in enumerate(events, first):
            self.said[n] = {"type": kind} if kind == ACCEPTED else {"type": kind, **data}
            self.n = max(self.n, n)

    def layout(self, outcome: Outcome) -> Layout | None:
        """What the attempt's stream was, from what each side wrote; None if there is a hole in it."""
        entries: dict[int, int | dict[str, Any]] = dict(self.said)
        entries.update(dict(outcome.deltas))
        entries.update({n: {"type": "turn.model", "model": m, "reason": r} for n, m, r in outcome.models})
        if not entries:
            return unjournalled()
        if len(entries) != max(entries):
            return None
        layout = [entries[n] for n in sorted(entries)]
        rest = len(outcome.text) - sum(length for _, length in outcome.deltas)
        return [*layout, rest] if rest else layout


def unjournalled() -> Layout:
    """The stream of a turn that no journal held: it carries no deltas and cannot be resumed."""
    return [{"type": ACCEPTED, "resumable": False}]


def _seen(future: "asyncio.Future[Ended]") -> None:
    if not future.cancelled():
        future.exception()
