"""What follows from a history before anything is judged: who knew of what, and since when."""

import math
from collections import defaultdict
from dataclasses import dataclass, field

from domain.events import TERMINAL
from domain.turn import TurnStatus
from tests.faults.history import History, Message, Operation
from tests.faults.requests import Request, requests_of


@dataclass(slots=True)
class Seen:
    """A message, known `since` the call number `by` told of it (at the end of all: infinity, None)."""

    message: Message
    since: float
    by: int | None

    @property
    def operations(self) -> tuple[int, ...]:
        return () if self.by is None else (self.by,)


@dataclass(frozen=True, slots=True)
class Observation:
    """A turn was in this state at some moment between `began` and `ended`. An old event, which is told again and again,
    is only a `bound`: the turn had come so far, and may have gone further before `began`."""

    status: TurnStatus | None
    attempt: int | None
    began: float
    ended: float
    by: int | None
    bound: bool = False

    @property
    def rank(self) -> int:
        if self.status is None or self.status is TurnStatus.QUEUED:
            return 0
        return 2 if self.status.ended else 1


@dataclass(slots=True)
class Facts:
    """`seen`: messages by conversation and id, `twice`: the same message told differently; `begun`: a turn was not
    there earlier; `observed`: states of turns; `deletable`: conversations that may have been deleted, since when."""

    history: History
    requests: list[list[Request]]
    calls: dict[str, list[Operation]] = field(default_factory=lambda: defaultdict(list))
    seen: dict[str, dict[str, Seen]] = field(default_factory=lambda: defaultdict(dict))
    twice: list[tuple[Seen, Seen]] = field(default_factory=list)
    begun: dict[str, float] = field(default_factory=dict)
    observed: dict[str, list[Observation]] = field(default_factory=lambda: defaultdict(list))
    replies: dict[str, Seen] = field(default_factory=dict)
    deletable: dict[str, float] = field(default_factory=dict)

    def earliest(self, message: Message) -> float:
        """The message cannot have been there before."""
        return self.begun.get(message.turn, -math.inf)


def facts_of(history: History) -> Facts:
    facts = Facts(history, requests_of(history.operations))
    for call in history.operations:
        facts.calls[call.conversation].append(call)
        for message, at in call.sightings():
            _see(facts, Seen(message, at, call.id))
        _observe(facts, call)
        if call.kind == "delete" and (call.outcome != "refused" or call.http == 404):
            # 404 too: the service may have sent it again inside, after a first try whose answer was lost
            facts.deletable[call.conversation] = min(call.began, facts.deletable.get(call.conversation, math.inf))
    for stored in history.stored.values():
        for message in stored.messages or ():
            _see(facts, Seen(message, math.inf, None))
        for turn in stored.turns:
            facts.observed[turn.id].append(Observation(turn.status, turn.attempt, math.inf, math.inf, None))
    for seen in (one for conversation in facts.seen.values() for one in conversation.values()):
        if seen.message.role == "assistant":
            status = TurnStatus(seen.message.status)
            facts.observed[seen.message.turn].append(
                Observation(status, None, seen.since, seen.since, seen.by, bound=True)
            )
            facts.replies.setdefault(seen.message.turn, seen)
    _begin(facts)
    _expect(facts)
    return facts


def _see(facts: Facts, seen: Seen) -> None:
    known = facts.seen[seen.message.conversation].setdefault(seen.message.id, seen)
    if known.message != seen.message:
        facts.twice.append((known, seen))
    if seen.since < known.since:
        known.since, known.by = seen.since, seen.by


def _observe(facts: Facts, call: Operation) -> None:
    if call.turn is not None:
        state = Observation(call.turn.status, call.turn.attempt, call.began, call.ended, call.id)
        facts.observed[call.turn.id].append(state)
    attempt = 0
    for index, event in enumerate(call.events):
        at = call.time(index)
        if event.type in TERMINAL:
            status = TurnStatus(event.type.removeprefix("turn."))
            facts.observed[event.turn_id].append(Observation(status, event.attempt, call.began, at, call.id))
        elif event.attempt > attempt:
            attempt = event.attempt
            facts.observed[event.turn_id].append(Observation(None, attempt, call.began, at, call.id, bound=True))


def _begin(facts: Facts) -> None:
    """When the turns began at the earliest; of an unanswered send, its message tells which turn became of it.

    A turn of which only a reply was seen became of any of its conversation's unanswered requests.
    """
    sent: dict[tuple[str, str], float] = {}
    first: dict[str, float] = {}
    for request in (one for bodies in facts.requests for one in bodies):
        call, began = request.first, request.began
        for told in request.acknowledged:
            if turn := told.turn_told:
                facts.begun[turn] = min(began, facts.begun.get(turn, math.inf))
        if call.kind == "send":
            place = (call.conversation, call.content)
            sent[place] = min(began, sent.get(place, math.inf))
        if call.kind != "create":
            first[call.conversation] = min(began, first.get(call.conversation, math.inf))
    for messages in facts.seen.values():
        for message in (seen.message for seen in messages.values()):
            if message.role == "user" and message.turn not in facts.begun:
                facts.begun[message.turn] = sent.get((message.conversation, message.content), -math.inf)
    for turn, seen in facts.replies.items():
        facts.begun.setdefault(turn, first.get(seen.message.conversation, -math.inf))


def _expect(facts: Facts) -> None:
    """Who knows of a turn knows that its message stands, and of its end that its reply does: each is one commit."""
    for seen in (one for conversation in facts.seen.values() for one in conversation.values()):
        states = facts.observed[seen.message.turn]
        if seen.message.role == "assistant":
            states = [state for state in states if state.rank == 2]
        state = min(states, key=lambda one: one.ended, default=None)
        if state is not None and state.ended < seen.since:
            seen.since, seen.by = state.ended, state.by
