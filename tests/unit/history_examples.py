"""A small clean history, and for each violation the smallest change of it that a checker must find.

One conversation of two turns: a create (1), a send (2), a stream of its turn (3), a read (4), a send (5), a read (6).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from domain.events import ACCEPTED, COMPLETED, DELTA, MODEL, Event
from domain.turn import TurnStatus
from tests.faults.history import History, Message, Operation, Provided, Stored, TurnState
from tests.faults.sequential import body

Change = Callable[[History], History]
PLACE = "conv_1"


def message(seq: int, turn: str, role: Any, content: str, status: Any = "completed") -> Message:
    return Message(f"msg_{seq}", PLACE, turn, seq, role, content, status)


HI, AB = message(1, "turn_1", "user", "hi"), message(2, "turn_1", "assistant", "a b")
HO, C = message(3, "turn_2", "user", "ho"), message(4, "turn_2", "assistant", "c")
DONE = TurnState("turn_1", TurnStatus.COMPLETED, 1)
ALSO = TurnState("turn_2", TurnStatus.COMPLETED, 1)
FOUR = (HI, AB, HO, C)


def event(attempt: int, n: int, kind: str, turn: str = "turn_1", **data: Any) -> Event:
    return Event(turn, attempt, n, kind, data)


EVENTS = (
    event(1, 1, ACCEPTED, user_message=body(HI)),
    event(1, 2, MODEL, model="small", reason="named"),
    event(1, 3, DELTA, text="a"),
    event(1, 4, DELTA, text=" b"),
    event(1, 5, COMPLETED, message=body(AB)),
)


def call(number: int, kind: Any, at: float | None = None, **fields: Any) -> Operation:
    """In the second from twice its number on, or from `at`."""
    began = 2.0 * number if at is None else at
    return Operation(number, "c1", kind, **{"conversation": PLACE, "began": began, "ended": began + 1, **fields})


def small() -> History:
    history = History()
    for record in (
        call(1, "create", key="k1"),
        call(2, "send", key="k2", content="hi", turn=DONE, user_message=HI, reply=AB),
        call(3, "stream", turn_id="turn_1", events=EVENTS),
        call(4, "read", messages=(HI, AB)),
        call(5, "send", key="k5", content="ho", turn=ALSO, user_message=HO, reply=C),
        call(6, "read", messages=FOUR),
        Stored(PLACE, FOUR, (DONE, ALSO), {"msg_2": None, "msg_4": None}),
        Provided("turn_1", ("a b",)),
        Provided("turn_2", ("c",)),
    ):
        history.add(record)
    return history


# Changes of a history.


def also(*calls: Operation) -> Change:
    """These calls too."""
    return lambda history: replace(history, operations=[*history.operations, *calls])


def but(number: int, **fields: Any) -> Change:
    """The call of this number otherwise."""
    return lambda history: replace(
        history, operations=[replace(one, **fields) if one.id == number else one for one in history.operations]
    )


def without(*numbers: int) -> Change:
    """As if these calls had not been made; what they did stands."""
    return lambda history: replace(history, operations=[one for one in history.operations if one.id not in numbers])


def stored(*messages: Message, **fields: Any) -> Change:
    """With these messages at the end, or as they were, and other fields."""

    def change(history: History) -> History:
        kept = history.stored[PLACE]
        new = replace(kept, messages=messages or kept.messages, **fields)
        return replace(history, stored={**history.stored, PLACE: new})

    return change


def streamed(*events: Event, after: str | None = None) -> Change:
    """The stream of the first turn told these events."""
    return but(3, events=events, after=after)


def both(*changes: Change) -> Change:
    def change(history: History) -> History:
        for one in changes:
            history = one(history)
        return history

    return change


def nothing(history: History) -> History:
    return history


def gone(history: History) -> History:
    """The conversation is not there at the end."""
    return replace(history, stored={PLACE: Stored(PLACE)})


def provided(turn: str, *calls: str) -> Change:
    """The provider sent this for the turn."""
    return lambda history: replace(history, provided={**history.provided, turn: Provided(turn, calls)})
