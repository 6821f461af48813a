"""The checker of histories: it finds each defect, and nothing in what a sequential service explains."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from domain.events import ACCEPTED, COMPLETED, Position
from domain.turn import TurnStatus
from tests.faults.checker import check
from tests.faults.clients import clean_history
from tests.faults.history import History, TurnState, event_of
from tests.faults.sources import comes_from
from tests.faults.sweep import largest_before
from tests.faults.violations import NAMES, Violation
from tests.unit.history_corruptions import OF_MESSAGES
from tests.unit.history_defects import DEFECTS, UNKNOWN
from tests.unit.history_examples import AB, ALSO, EVENTS, HI, HO, C, Change, also, both, but, call, event, small, stored
from tests.unit.turn_corruptions import OF_TURNS

CORRUPTIONS = OF_MESSAGES | OF_TURNS
SEEDS = st.integers(0, 2**32)


def names(history: History) -> set[str]:
    return {violation.name for violation in check(history)}


def test_there_is_an_example_of_every_violation() -> None:
    assert DEFECTS.keys() == NAMES.keys()
    with pytest.raises(ValueError, match="there is no violation"):
        Violation("unheard_of", "")


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found_and_without_it_nothing(name: str) -> None:
    clean, defect = DEFECTS[name]
    assert check(clean(small())) == []
    found = {violation.name: violation for violation in check(defect(clean(small())))}
    assert name in found
    assert found[name].name in str(found[name])


FAILED = both(
    but(2, http=502, turn=TurnState("turn_1", TurnStatus.FAILED), user_message=None, reply=None),
    but(3, events=(EVENTS[0], event(1, 2, "turn.failed", error={"code": "provider_error"}))),
    but(4, messages=(HI,)),
    but(5, user_message=replace(HO, seq=2), reply=replace(C, seq=3)),
    but(6, messages=(HI, replace(HO, seq=2), replace(C, seq=3))),
    stored(
        HI,
        replace(HO, seq=2),
        replace(C, seq=3),
        turns=(TurnState("turn_1", TurnStatus.FAILED, 1), ALSO),
        superseded={},
    ),
)
UNJOURNALLED = but(
    3,
    events=(
        event(1, 1, ACCEPTED, user_message=EVENTS[0].data["user_message"], resumable=False),
        event(1, 2, COMPLETED, message=EVENTS[4].data["message"]),
    ),
)
ALLOWED: dict[str, Change] = {
    "a turn that failed without text has no reply": FAILED,
    "a stream without a journal carries no text": UNJOURNALLED,
    "a reader who has the end gets nothing more": but(3, events=(), after="turn_1/1/5"),
    "a client may leave in mid-stream": but(3, events=EVENTS[:3], outcome="unknown"),
    "an unanswered send may not have happened": also(UNKNOWN),
    "a key may be tried again after a refusal": also(
        call(7, "send", 7.2, key="k5", content="ho", outcome="refused", http=409, code="conversation_busy")
    ),
    "too many calls are refused whatever their key": also(
        call(7, "send", key="k2", content="hi", outcome="refused", http=429, code="overloaded")
    ),
    "calls that overlap have no order": but(6, began=6.0, ended=20.0, messages=(HI, AB)),
}


@pytest.mark.parametrize("what", ALLOWED)
def test_what_the_service_may_do_is_no_violation(what: str) -> None:
    assert check(ALLOWED[what](small())) == []


@example(390, 17)  # a reply is streamed, its message never seen, and the conversation deleted
@example(897613, 12)  # a message was taken, and the conversation deleted before its answer, which is "not found"
@given(SEEDS, st.integers(1, 120))
@settings(max_examples=150, deadline=None)
def test_what_a_sequential_service_explains_is_clean(seed: int, number: int) -> None:
    history = clean_history(seed, number)
    assert len(history.operations) == number
    assert check(history) == []


@pytest.mark.parametrize("name", CORRUPTIONS)
@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_a_single_corruption_is_always_found(name: str, seed: int) -> None:
    corruption, expected = CORRUPTIONS[name]
    corrupted = corruption(clean_history(seed, 60), Random(seed))
    assume(corrupted is not None)
    assert corrupted is not None
    assert names(corrupted) & expected


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_a_history_is_the_same_after_it_was_written_and_read(seed: int) -> None:
    history = clean_history(seed, 40)
    lines = list(history.lines())
    assert all(b"\n" not in line for line in lines)
    assert History.of(lines) == history
    with pytest.raises(ValueError):
        History.of([b'{"record": "rumour"}'])


def test_a_recorder_takes_bodies_of_the_api() -> None:
    body = {"type": "message.delta", "turn_id": "turn_1", "attempt": 1, "n": 3, "text": "a"}
    assert event_of(body) == EVENTS[2] and event_of(body).body() == body
    assert TurnState.of({"id": "turn_1", "status": "queued", "attempt": 1}).status is TurnStatus.QUEUED
    resumed = call(1, "stream", turn_id="turn_1", after="turn_1/2/7", events=EVENTS)
    assert resumed.position == Position(2, 7) and [at for _, at in resumed.sightings()] == [3.0, 3.0]


def test_what_touches_in_time_is_concurrent() -> None:
    known = [(1.0, 5, "a"), (2.0, 3, "b"), (3.0, 9, "c")]
    assert dict(largest_before(known, [(1.0, 1), (1.5, 2), (3.0, 3), (3.1, 4)])) == {2: "a", 3: "a", 4: "c"}


@given(st.text("ab", max_size=8), st.lists(st.text("ab", max_size=4), max_size=3), st.booleans())
def test_a_reply_is_made_of_beginnings_of_what_was_sent(content: str, calls: list[str], whole: bool) -> None:
    reached, complete = {""}, False
    for text in calls:
        complete = complete or any(start + text == content for start in reached)
        reached |= {start + text[:length] for start in reached for length in range(len(text) + 1)}
    assert comes_from(content, calls, whole) == (content in calls or complete or (not whole and content in reached))
