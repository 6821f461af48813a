"""What a check costs, in lines of Python that are run: it grows with the history, not with its square."""

import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest

from tests.faults.checker import check
from tests.faults.clients import clean_history
from tests.faults.history import History, Stored
from tests.unit.history_examples import AB, DONE, EVENTS, HI, PLACE, call, small

Shape = Callable[[int], History]
MORE, GROWTH = 8, 1.3  # a history so many times as large may cost so much more than as many times the lines


def lines_run(history: History) -> int:
    count = 0

    def inside(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return inside

    before = sys.gettrace()
    sys.settrace(inside)
    try:
        assert check(history) == []
    finally:
        sys.settrace(before)
    return count


def one_conversation(number: int) -> History:
    """All sent to one conversation, one after the other."""
    history, messages, turns = History(), [], []
    for place in range(number):
        turn = replace(DONE, id=f"turn_{place}")
        asked = replace(HI, id=f"msg_{place}", turn=turn.id, seq=2 * place + 1, content=f"m{place}")
        reply = replace(AB, id=f"reply_{place}", turn=turn.id, seq=2 * place + 2)
        history.add(call(place, "send", content=asked.content, turn=turn, user_message=asked, reply=reply))
        messages += [asked, reply]
        turns.append(turn)
    history.add(Stored(PLACE, tuple(messages), tuple(turns), {one.id: None for one in messages[1::2]}))
    return history


def one_key(number: int) -> History:
    """One send, repeated."""
    return _repeated(number, "send", key="k2", content="hi", turn=DONE, user_message=HI, reply=AB)


def one_turn_looked_at(number: int) -> History:
    return _repeated(number, "look", turn_id="turn_1", turn=DONE)


def one_turn_cancelled(number: int) -> History:
    return _repeated(number, "cancel", turn_id="turn_1", turn=DONE)


def one_turn_streamed(number: int) -> History:
    return _repeated(number, "stream", turn_id="turn_1", events=EVENTS)


def everything(number: int) -> History:
    return clean_history(number, number)


def _repeated(number: int, kind: str, **fields: Any) -> History:
    history = small()
    for place in range(100, 100 + number):
        history.add(call(place, kind, **fields))
    return history


SHAPES = (one_conversation, one_key, one_turn_looked_at, one_turn_cancelled, one_turn_streamed)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_cost_grows_as_the_history_does_whatever_its_shape(shape: Shape) -> None:
    few = lines_run(shape(250))
    assert lines_run(shape(250 * MORE)) < few * MORE * GROWTH


def test_twenty_thousand_operations_cost_eight_times_what_an_eighth_of_them_does() -> None:
    few = lines_run(everything(20_000 // MORE))
    assert lines_run(everything(20_000)) < few * MORE * GROWTH
