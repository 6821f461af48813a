"""Single corruptions of what a clean history tells of turns and their streams."""

from dataclasses import replace
from itertools import pairwise
from random import Random

from domain.events import ACCEPTED, DELTA, TERMINAL
from domain.turn import TurnStatus
from tests.faults.facts import facts_of
from tests.faults.history import History, Operation, TurnState
from tests.unit.history_corruptions import Corruptions, end_of, instead, later, one_of

OF_TURNS = Corruptions()


def _told(history: History, random: Random) -> tuple[str, TurnState] | None:
    told = [(call.conversation, call.turn) for call in history.operations if call.turn and call.turn.status.ended]
    return one_of(random, [(place, turn) for place, turn in told if turn is not None])


@OF_TURNS.found_as("status_fell")
def a_status_moves_backwards(history: History, random: Random) -> History | None:
    told = _told(history, random)
    return told and later(history, "look", told[0], turn=replace(told[1], status=TurnStatus.RUNNING))


@OF_TURNS.found_as("ended_turn_changed")
def an_end_changes(history: History, random: Random) -> History | None:
    told = _told(history, random)
    if told is None:
        return None
    other = TurnStatus.FAILED if told[1].status is TurnStatus.COMPLETED else TurnStatus.COMPLETED
    return later(history, "look", told[0], turn=replace(told[1], status=other))


@OF_TURNS.found_as("attempt_fell")
def an_attempt_falls(history: History, random: Random) -> History | None:
    told = [(call.conversation, call.turn) for call in history.operations if call.turn]
    place = one_of(random, [(name, turn) for name, turn in told if turn and (turn.attempt or 0) > 1])
    return place and later(history, "look", place[0], turn=replace(place[1], attempt=1))


@OF_TURNS.found_as("retry_differs")
def a_retry_becomes_another_turn(history: History, random: Random) -> History | None:
    call = one_of(random, [one for one in history.operations if one.kind == "send" and one.key and one.turn])
    if call is None:
        return None
    other = replace(call, id=10_000, began=end_of(history), ended=end_of(history) + 1)
    turn = TurnState("turn_more", TurnStatus.COMPLETED, 1)
    return replace(history, operations=[*history.operations, replace(other, turn=turn)])


def _streams(history: History) -> list[Operation]:
    return [call for call in history.operations if call.events]


@OF_TURNS.found_as("stream_start", "event_gap")
def an_event_is_lost(history: History, random: Random) -> History | None:
    """One that another of its attempt follows: what an attempt said last before it was given up need not be told."""
    places = [
        (call, index)
        for call in _streams(history)
        for index, (event, after) in enumerate(pairwise(call.events))
        if event.attempt == after.attempt
    ]
    place = one_of(random, places)
    if place is None:
        return None
    call, index = place
    return instead(history, call, events=call.events[:index] + call.events[index + 1 :], times=())


@OF_TURNS.found_as("event_repeated", "event_after_end")
def an_event_is_repeated(history: History, random: Random) -> History | None:
    call = one_of(random, _streams(history))
    if call is None:
        return None
    index = random.randrange(len(call.events))
    return instead(history, call, events=call.events[: index + 1] + call.events[index:], times=())


@OF_TURNS.found_as("text_differs", "event_differs")
def a_streamed_text_is_changed(history: History, random: Random) -> History | None:
    places = [
        (call, index)
        for call in _streams(history)
        for index, event in enumerate(call.events)
        if event.type == DELTA
        and call.events[0].type == ACCEPTED
        and call.events[-1].type in TERMINAL
        and event.attempt == call.events[-1].attempt
    ]
    place = one_of(random, places)
    if place is None:
        return None
    call, index = place
    events = list(call.events)
    events[index] = replace(events[index], data={"text": "?"})
    return instead(history, call, events=tuple(events))


@OF_TURNS.found_as("stream_without_end")
def a_stream_stops_before_the_end(history: History, random: Random) -> History | None:
    whole = [call for call in _streams(history) if call.events[0].type == ACCEPTED and call.events[-1].type in TERMINAL]
    deleted = facts_of(history).deletable
    call = one_of(random, [one for one in whole if one.conversation not in deleted])
    if call is None:
        return None
    turn = call.events[0].turn_id
    return later(history, "stream", call.conversation, turn_id=turn, events=call.events[:-1])
