"""A turn in the hands of its owner: what it has said in its stream so far, and who waits for its end."""

import asyncio
import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from domain.commands import Accepted, Ended, UnfinishedTurn
from domain.errors import BrainError
from domain.events import ACCEPTED, DELTA, MODEL, RESET, Entry, Layout
from domain.generation import Attempt, GenerationRequest, Outcome
from domain.ledger import Charge
from domain.message import Intent, Usage
from domain.ports import Understanding
from domain.tool_calls import Round
from domain.turn import TurnStatus


@dataclass(eq=False, slots=True)
class LiveTurn:
    """`n` is the last event number that its owner knows of; `said` are the owner's own events by number, and
    `unanswered` the entries of those that the journal holds or does not: nobody knows.

    `begun`: whether it ran already when it came into these hands. `held`: USD of a budget that it may cost. `sides`:
    the generations of models that answer side by side.

    Of an attempt whose process died in mid-text: `prefix` is what it had said, `spoken` its deltas' lengths by number,
    `calls` what it is charged for, and `continued` how often an attempt went on from such a text.

    Of generations that called tools: `rounds` are those of the turn, whatever attempt made them. `heard` are the ones
    of this attempt that are accounted for, by what they said (`earlier`), their calls of providers (`tried`, and
    `calls`), `used` and `spent`.
    """

    asked: UnfinishedTurn
    status: TurnStatus
    attempt: int
    done: asyncio.Future[Ended]
    opened: asyncio.Future[bool]
    begun: bool = False
    n: int = 0
    said: dict[int, dict[str, Any]] = field(default_factory=dict)
    unanswered: list[Entry] = field(default_factory=list)
    cancelled: bool = False
    task: asyncio.Task[None] | None = None
    request: GenerationRequest | None = None
    sides: tuple[GenerationRequest, ...] = ()
    intent: Intent | None = None
    complexity: float | None = None
    understood: Understanding | None = None
    held: Decimal | None = None
    cancelling: asyncio.Task[None] | None = None
    began: float = field(default_factory=time.monotonic)
    prefix: str = ""
    spoken: dict[int, int] = field(default_factory=dict)
    calls: tuple[Charge, ...] = ()
    continued: int = 0
    rounds: list[Round] = field(default_factory=list)
    heard: set[int] = field(default_factory=set)
    earlier: str = ""
    tried: tuple[Attempt, ...] = ()
    used: list[Usage | None] = field(default_factory=list)
    spent: Decimal | None = None

    @classmethod
    def of(cls, asked: UnfinishedTurn) -> "LiveTurn":
        loop = asyncio.get_running_loop()
        live = cls(asked, asked.turn.status, asked.turn.attempt, loop.create_future(), loop.create_future())
        live.cancelled, live.held = asked.cancel_requested, asked.reserved
        live.begun = live.status is TurnStatus.RUNNING
        live.done.add_done_callback(_seen)  # nobody may be waiting for it
        return live

    @property
    def id(self) -> str:
        return self.asked.turn.id

    @property
    def requests(self) -> tuple[GenerationRequest, ...]:
        """The generations of the current attempt, as far as they were asked for."""
        return self.sides or (() if self.request is None else (self.request,))

    @property
    def said_so_far(self) -> str:
        """The text of this attempt before the generation at hand."""
        return self.earlier + self.prefix

    def accepted(self, replayed: bool, journalled: bool) -> Accepted:
        turn = self.asked.turn.model_copy(update={"status": self.status, "attempt": self.attempt})
        return Accepted(turn, self.asked.user_message, replayed, journalled)

    def note(self, first: int, events: list[tuple[str, dict[str, Any]]]) -> None:
        """Remember that these events stand in the journal from number `first` on."""
        for n, entry in enumerate(map(entry_of, events), first):
            if isinstance(entry, int):
                self.spoken[n] = entry
            else:
                self.said[n] = entry
            self.n = max(self.n, n)

    def doubt(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        """Remember that these events may stand in the journal."""
        self.unanswered += map(entry_of, events)

    def abandon(self, error: BrainError) -> None:
        """Leave it to another owner: whoever waits for it gets `error`."""
        if self.task is not None:
            self.task.cancel()
        if not self.done.done():
            self.done.set_exception(error)
        if not self.opened.done():
            self.opened.set_result(False)

    def known(self, outcome: Outcome) -> dict[int, Entry]:
        """The entries of the attempt's stream by number, from what each side wrote."""
        entries: dict[int, Entry] = {**dict(outcome.deltas), **self.said, **self.spoken}
        entries.update({n: {"type": MODEL, "model": m, "reason": r} for n, m, r in outcome.models})
        return entries

    def layout(self, outcome: Outcome) -> Layout | None:
        """What the attempt's stream was, or may go on as for its readers; None where they may have had another one.

        One event of which nobody knows whether the journal took it has one place: the hole among the others, or
        behind them. If it was taken it stands there, and if it was not, readers are told so from the layout. An
        opening's events stand first, if at all, and the owner's next ones were taken only behind them; twice said, they
        stand nobody knows where.
        """
        entries, doubtful = self.known(outcome), list(self.unanswered)
        if outcome.unanswered is not None:
            doubtful.append(outcome.unanswered)
        if not entries and outcome.unanswered is None:
            if not doubtful:
                return unjournalled()
            entries, doubtful = dict(enumerate(doubtful, 1)), []
        free = [n for n in range(1, max(entries, default=0) + 1) if n not in entries]
        place = free[0] if free else len(entries) + 1
        if len(doubtful) == 1 and len(free) < 2:
            entries[place] = doubtful[0]
        elif doubtful or free:
            return None
        said_later = outcome.unanswered is not None and place < max((n for n, _ in outcome.deltas), default=0)
        if said_later or [_opens(entries[n]) for n in sorted(entries)].count(True) != 1 or not _opens(entries[1]):
            return None
        layout = [entries[n] for n in sorted(entries)]
        rest = len(outcome.text) - sum(entry for entry in layout if isinstance(entry, int))
        return [*layout, rest] if rest > 0 else layout

    def begin_attempt(self) -> None:
        """Forget what the attempt before said."""
        self.attempt, self.n, self.said, self.unanswered = self.attempt + 1, 0, {}, []
        self.prefix, self.spoken, self.calls, self.sides = "", {}, (), ()
        self.heard, self.earlier, self.tried, self.used, self.spent = set(), "", (), [], None


def _opens(entry: Entry) -> bool:
    return isinstance(entry, dict) and entry["type"] in (ACCEPTED, RESET)


def entry_of(event: tuple[str, dict[str, Any]]) -> Entry:
    """What a layout keeps of an event."""
    kind, data = event
    if kind == DELTA:
        return len(data["text"])
    return {"type": kind} if kind == ACCEPTED else {"type": kind, **data}


def unjournalled() -> Layout:
    """The stream of a turn that no journal held: it carries no deltas and cannot be resumed."""
    return [{"type": ACCEPTED, "resumable": False}]


def _seen(future: "asyncio.Future[Ended]") -> None:
    if not future.cancelled():
        future.exception()
