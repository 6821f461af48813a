"""All streams of a turn together, its stored reply, and what the provider sent: one text."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from domain.events import ACCEPTED, DELTA, TERMINAL, Event, Position
from tests.faults.facts import Facts
from tests.faults.history import Operation
from tests.faults.judge_streams import place_of
from tests.faults.sources import comes_from
from tests.faults.violations import Violation

Told = dict[Position, tuple[Event, int]]


def judge_texts(facts: Facts) -> Iterator[Violation]:
    streams: dict[str, list[Operation]] = defaultdict(list)
    for call in facts.history.operations:
        if call.events:
            streams[call.events[0].turn_id].append(call)
    for turn, calls in streams.items():
        if any(
            event.type == ACCEPTED and event.data.get("resumable") is False for one in calls for event in one.events
        ):
            for call in calls:  # without its journal a turn's stream may lack text, and each reader's ends by itself
                yield from _text(facts, turn, {place_of(event): (event, call.id) for event in call.events}, part=True)
            continue
        told: Told = {}
        for call in calls:
            for event in call.events:
                first, by = told.setdefault(place_of(event), (event, call.id))
                if _said(first) != _said(event):
                    said = f"{event.id} was {_said(first)}, then {_said(event)}"
                    yield Violation("event_differs", said, (by, call.id))
        yield from _text(facts, turn, told, part=False)
    for turn, provided in facts.history.provided.items():
        reply = facts.replies.get(turn)
        if reply is not None and not comes_from(
            reply.message.content, provided.calls, whole=reply.message.status == "completed"
        ):
            yield Violation("text_not_provided", f"{turn}: {reply.message.content[:60]!r}", reply.operations)


def _text(facts: Facts, turn: str, told: Told, part: bool) -> Iterator[Violation]:
    """The text of the last attempt is the stored one, as far as it was told. `part`: not all of it has to be."""
    end = min((place for place, (event, _) in told.items() if event.type in TERMINAL), default=None)
    last = max(told)
    if end is not None and last > end:
        yield Violation("event_after_end", f"{told[last][0].id} follows {told[end][0].id}", _by(told, end, last))
    reply = facts.replies.get(turn)
    attempt = end.attempt if end is not None else _last_attempt(facts, turn)
    if attempt is None or (reply is None and end is None):
        return
    places = [Position(attempt, n) for n in range(1, max(place.n for place in told) + 1)]
    run = list(takewhile(told.__contains__, places))
    text = "".join(told[place][0].data["text"] for place in run if told[place][0].type == DELTA)
    kept = "" if reply is None else reply.message.content
    whole = not part and end is not None and run[-1:] == [end]
    if (text != kept) if whole else not kept.startswith(text):
        said = f"{turn}: {text[-60:]!r} was streamed, {kept[-60:]!r} is stored"
        yield Violation("text_differs", said, _by(told, *run[-1:]))
    elif end is not None and not part and (told[end][0].data.get("message") is None) != (reply is None):
        yield Violation("text_differs", f"{turn}: its end tells of a reply otherwise than it is stored", _by(told, end))


def _said(event: Event) -> tuple[str, Any]:
    return event.type, event.data.get("text")


def _last_attempt(facts: Facts, turn: str) -> int | None:
    """The attempt in which the turn ended, as far as anybody was told."""
    return next((state.attempt for state in facts.observed[turn] if state.rank == 2 and state.attempt), None)


def _by(told: Told, *places: Position) -> tuple[int, ...]:
    return tuple(sorted({told[place][1] for place in places}))
