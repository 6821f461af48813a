"""Each stream by itself: where it starts, that it leaves out and repeats nothing, and how it ends."""

import math
from collections import defaultdict
from collections.abc import Iterator

from domain.events import ACCEPTED, INTENT, RESET, TERMINAL, Event, Position
from tests.faults.facts import Facts
from tests.faults.history import Operation
from tests.faults.sweep import largest_before
from tests.faults.violations import Violation

SLOW = 20.0  # seconds after a turn's end within which its streams tell it


def place_of(event: Event) -> Position:
    return Position(event.attempt, event.n)


def judge_streams(facts: Facts) -> Iterator[Violation]:
    resumed: dict[str, list[Operation]] = defaultdict(list)
    for call in facts.history.operations:
        if call.events:
            yield from _events(call)
        if call.silent:
            yield from _silent(facts, call)
        if call.kind == "stream":
            resumed[call.turn_told].append(call)
    for turn, calls in resumed.items():
        states = facts.observed[turn]
        tried = [(state.ended, state.attempt, state) for state in states if state.attempt is not None]
        for call, known in largest_before(tried, [(call.began, call) for call in calls]):
            told = next((event for event in call.events if place_of(event) != Position(1, 1)), None)
            if told is not None and told.attempt < (known.attempt or 0):
                said = f"{turn} was in attempt {known.attempt}, and {told.id} was told"
                yield Violation("stream_behind", said, (call.id,))
        yield from _endless(facts, turn, calls)


def _events(call: Operation) -> Iterator[Violation]:
    """The first thing that is wrong with a stream: what follows from there on would be told again and again."""
    start = call.position
    before, ended, intents = start or Position(1, 0), False, set[int]()
    for event in call.events:
        place = place_of(event)
        opens = event.type == ACCEPTED if place == Position(1, 1) else event.type == RESET
        wrong = ""
        if event.turn_id != call.turn_told:
            wrong = "wrong_turn"
        elif ended:
            wrong = "event_after_end"
        elif start is None and before == Position(1, 0) and place != Position(1, 1):
            wrong = "stream_start"
        elif place <= before:
            wrong = "event_repeated"
        elif event.n != (before.n + 1 if event.attempt == before.attempt else 1):
            wrong = "event_gap"
        elif opens != (event.n == 1) or (event.n > 1 and event.type == ACCEPTED):
            wrong = "opening_misplaced"
        elif event.type == INTENT and event.attempt in intents:
            wrong = "intent_repeated"
        if wrong:
            yield Violation(wrong, f"{event.id} ({event.type}) after {before.attempt}/{before.n}", (call.id,))
            return
        before, ended = place, event.type in TERMINAL
        if event.type == INTENT:
            intents.add(event.attempt)


def _silent(facts: Facts, call: Operation) -> Iterator[Violation]:
    ended = min((one.ended for one in facts.observed[call.turn_told] if one.rank == 2), default=math.inf)
    if call.ended - ended > SLOW and call.conversation not in facts.deletable:
        said = f"{call.turn_told} had ended {call.ended - ended:.0f} s before its reader left"
        yield Violation("stream_silent", said, (call.id,))


def _endless(facts: Facts, turn: str, calls: list[Operation]) -> Iterator[Violation]:
    """The service ends a stream of a turn that has ended with the turn's end; a reader who has it gets nothing more."""
    ends = [place_of(event) for call in calls for event in call.events[-1:] if event.type in TERMINAL]
    known = [(state.ended, state.rank, state) for state in facts.observed[turn] if state.rank == 2]
    for call, _ in largest_before(known, [(call.began, call) for call in calls]):
        if call.outcome != "ok" or call.conversation in facts.deletable:
            continue
        told = call.events[-1].type in TERMINAL if call.events else False
        behind = call.position is None or (bool(ends) and call.position < min(ends))
        if not told and behind:
            yield Violation("stream_without_end", f"{turn} had ended, and its stream told no end", (call.id,))
