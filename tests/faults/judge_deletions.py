"""What was deleted stays away, and what was not stays."""

import math
from collections.abc import Iterator

from tests.faults.facts import Facts
from tests.faults.history import Operation
from tests.faults.violations import Violation

OF_TURNS = frozenset({"look", "stream", "cancel"})


def judge_deletions(facts: Facts) -> Iterator[Violation]:
    for conversation, calls in facts.calls.items():
        stored = facts.history.stored.get(conversation)
        if conversation in facts.deletable:
            gone = min((call for call in calls if _tells_of_deletion(facts, call)), key=_ended, default=None)
            if gone is None:
                continue
            for call in calls:
                if call.began > gone.ended and call.acknowledged and call.kind != "create":
                    yield Violation("deleted_came_back", f"{call.kind} found {conversation} again", (gone.id, call.id))
            if stored is not None and stored.messages is not None:
                yield Violation("deleted_came_back", f"{conversation} is there at the end", (gone.id,))
            continue
        known = min((call for call in calls if call.acknowledged), key=_ended, default=None)
        if known is None:
            continue
        if stored is not None and stored.messages is None:
            yield Violation("conversation_lost", f"{conversation} is not there at the end", (known.id,))
        for call in calls:
            if _missing(call) and known.ended < call.began and call.kind in ("send", "read"):
                yield Violation("conversation_lost", f"{call.kind} did not find {conversation}", (known.id, call.id))
        if stored is not None and stored.messages is not None:
            kept = {turn.id for turn in stored.turns}
            told = {call.turn_told: call.id for call in calls if call.acknowledged and call.turn_told}
            for turn in told.keys() - kept:
                yield Violation("turn_lost", f"{turn} is not there at the end", (told[turn],))
    yield from _turns(facts)


def _turns(facts: Facts) -> Iterator[Violation]:
    for call in facts.history.operations:
        if call.kind in OF_TURNS and _missing(call) and call.conversation not in facts.deletable:
            since = min((state.ended for state in facts.observed[call.turn_told]), default=math.inf)
            if since < call.began:
                yield Violation("turn_lost", f"{call.kind} did not find {call.turn_told}", (call.id,))


def _tells_of_deletion(facts: Facts, call: Operation) -> bool:
    """An answered deletion, or a conversation that was not found once one may have begun."""
    if call.kind == "delete":
        return call.outcome == "ok"
    return call.kind in ("send", "read") and _missing(call) and call.ended > facts.deletable[call.conversation]


def _missing(call: Operation) -> bool:
    return call.outcome == "refused" and call.code == "not_found"


def _ended(call: Operation) -> float:
    return call.ended
