"""The events of a turn's stream, their ids and their layout (API.md, "Streamed").

An id is `<turn_id>/<attempt>/<n>`. A layout is what Postgres keeps of an attempt once the journal has gone: one entry
an event, an int for a delta (its length in characters), an object for every other. Replaying it gives the same ids and
texts.
"""

from dataclasses import dataclass
from typing import Any

ACCEPTED, INTENT, MODEL = "turn.accepted", "turn.intent", "turn.model"
DELTA, RESET = "message.delta", "turn.reset"
CANDIDATE_DELTA, CANDIDATE_COMPLETED = "candidate.delta", "candidate.completed"  # of models that answer side by side
COMPLETED, FAILED, CANCELLED = "turn.completed", "turn.failed", "turn.cancelled"
TERMINAL = frozenset({COMPLETED, FAILED, CANCELLED})

Entry = int | dict[str, Any]
Layout = list[Entry]


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream; `data` is what its type carries beside `type`, `turn_id`, `attempt` and `n`."""

    turn_id: str
    attempt: int
    n: int
    type: str
    data: dict[str, Any]

    @property
    def id(self) -> str:
        return f"{self.turn_id}/{self.attempt}/{self.n}"

    def body(self) -> dict[str, Any]:
        return {"type": self.type, "turn_id": self.turn_id, "attempt": self.attempt, "n": self.n, **self.data}


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a reader stands: after event `n` of `attempt`; (1, 0) is the beginning."""

    attempt: int = 1
    n: int = 0


def parse_event_id(value: str, turn_id: str) -> Position | None:
    """The position that an event id names, or None if it is not an id of this turn's events."""
    head, _, tail = value.partition("/")
    attempt, _, n = tail.partition("/")
    if head != turn_id or not (attempt.isascii() and attempt.isdigit() and n.isascii() and n.isdigit()):
        return None
    return Position(int(attempt), int(n)) if int(attempt) and int(n) and len(tail) < 20 else None


def replay(turn_id: str, attempt: int, layout: Layout, text: str) -> list[Event]:
    """The events of an attempt, rebuilt from its layout and the stored reply; the last delta takes what is left."""
    events, at = [], 0
    for n, entry in enumerate(layout, 1):
        if isinstance(entry, int):
            events.append(Event(turn_id, attempt, n, DELTA, {"text": text[at : at + entry]}))
            at += entry
        else:
            data = dict(entry)
            events.append(Event(turn_id, attempt, n, data.pop("type"), data))
    return events
