"""A turn's state against real time: it moves forward, ends once, and its attempts only rise."""

from collections.abc import Iterator

from domain.turn import TurnStatus
from tests.faults.facts import Facts, Observation
from tests.faults.sweep import largest_before
from tests.faults.violations import Violation


def judge_turns(facts: Facts) -> Iterator[Violation]:
    completed: dict[str, Observation] = {}
    for turn, states in facts.observed.items():
        yield from _forward(turn, states)
        ends: dict[TurnStatus, Observation] = {}
        for state in states:
            if state.status is not None and state.status.ended:
                ends.setdefault(state.status, state)
        if len(ends) > 1:
            yield Violation("ended_turn_changed", f"{turn} ended {' and '.join(sorted(ends))}", _by(*ends.values()))
        if TurnStatus.COMPLETED in ends:
            completed[turn] = ends[TurnStatus.COMPLETED]
    for call in facts.history.operations:
        if call.kind == "cancel" and call.outcome == "ok" and call.turn is not None:
            done = completed.get(call.turn.id)
            if done is not None and call.turn.status not in (TurnStatus.COMPLETED, TurnStatus.FAILED):
                said = f"{call.turn.id} was {call.turn.status} when it was cancelled, and completed"
                yield Violation("cancel_undone", said, (*_by(done), call.id))


def _forward(turn: str, states: list[Observation]) -> Iterator[Violation]:
    told = [state for state in states if state.status is not None]
    later = [(state.began, state) for state in told if not state.bound]
    for state, before in largest_before([(one.ended, one.rank, one) for one in told], later):
        if state.rank < before.rank:
            said = f"{turn} was {before.status}, then {state.status}"
            yield Violation("status_fell", said, _by(before, state))
    tried = [(state.ended, state.attempt, state) for state in states if state.attempt is not None]
    asked = [(state.began, state) for state in states if state.attempt is not None and not state.bound]
    for state, before in largest_before(tried, asked):
        if (state.attempt or 0) < (before.attempt or 0):
            said = f"{turn} was in attempt {before.attempt}, then {state.attempt}"
            yield Violation("attempt_fell", said, _by(before, state))


def _by(*states: Observation) -> tuple[int, ...]:
    return tuple(state.by for state in states if state.by is not None)
