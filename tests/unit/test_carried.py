"""Data that crosses processes, some of which run another version of this code."""

import pickle
from dataclasses import dataclass, field, make_dataclass, replace
from decimal import Decimal
from typing import Any

import pytest

from domain.carried import carried, rebuilt
from domain.commands import Send
from domain.conversation import ConversationKey
from domain.generation import Attempt, GenerationRequest, Outcome

SEND = Send(ConversationKey("t", "c"), "key", "again", b"hash", "turn", "msg", "hello")
ATTEMPT = Attempt("m", "p", "ok", None, 1.0, None, 2.0)


@pytest.mark.parametrize(
    "value",
    [
        SEND,
        replace(SEND, reserve=Decimal("0.1")),
        replace(SEND, metadata={"a": 1}, wait=True),
        ATTEMPT,
        replace(ATTEMPT, reply=True),
        Outcome("completed"),
        Outcome("completed", "hi", attempts=(ATTEMPT,), tool_calls=({"id": "1"},)),
        GenerationRequest("t", "turn", 1, "m", [{"role": "user", "content": "hi"}], side=0),
    ],
)
def test_what_is_carried_arrives_whole(value):
    found = pickle.loads(pickle.dumps(value))  # noqa: S301 - its own
    assert found == value and repr(found) == repr(value)


def test_defaults_at_the_end_are_not_carried():
    build, told = SEND.__reduce__()
    assert build is rebuilt and len(told) == 1 + 11, "up to the last field whose default is made anew"
    assert ATTEMPT.__reduce__()[1][1:] == ("m", "p", "ok", None, 1.0, None, 2.0)


def test_an_older_class_takes_what_it_has_fields_for_and_a_newer_one_has_defaults():
    @carried
    @dataclass(frozen=True, slots=True)
    class Old:
        a: int
        b: list[int] = field(default_factory=list)

    new: Any = carried(make_dataclass("New", [("a", int), ("b", list), ("c", int, 3)], frozen=True))
    _, (_, *newer) = new(1, [2], 4).__reduce__()
    assert rebuilt(Old, *newer) == Old(1, [2])
    _, (_, *older) = Old(1, [2]).__reduce__()
    assert rebuilt(new, *older) == new(1, [2], 3)
    with pytest.raises(TypeError):
        rebuilt(Old)
