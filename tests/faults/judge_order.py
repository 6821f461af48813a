"""The order of messages against real time: what was known before something began stands before it."""

import math
from collections.abc import Iterator

from tests.faults.facts import Facts, Seen
from tests.faults.history import Operation
from tests.faults.sweep import largest_before
from tests.faults.violations import Violation


def judge_order(facts: Facts) -> Iterator[Violation]:
    for conversation, messages in facts.seen.items():
        known = [(seen.since, seen.message.seq, seen) for seen in messages.values() if seen.since < math.inf]
        sent = [(facts.earliest(seen.message), seen) for seen in messages.values()]
        for seen, before in largest_before(known, sent):
            if before.message.seq >= seen.message.seq:
                said = f"{_what(before)} was known before {_what(seen)} was sent"
                yield Violation("order", said, before.operations + seen.operations)
        reads = [call for call in facts.calls[conversation] if call.kind == "read" and call.outcome == "ok"]
        for read in reads:
            yield from _read(facts, read)
        for read, before in largest_before(known, [(read.began, read) for read in reads]):
            newest = read.messages[-1].seq if read.messages else 0
            if newest < before.message.seq:
                said = f"it ends with number {newest}, and {_what(before)} was known before it began"
                yield Violation("stale_read", said, (*before.operations, read.id))


def _read(facts: Facts, read: Operation) -> Iterator[Violation]:
    for place, message in enumerate(read.messages, 1):
        if message.seq != place:
            yield Violation("read_gap", f"number {message.seq} stands at place {place}", (read.id,))
            return
    for message in read.messages:
        if facts.earliest(message) > read.ended:
            yield Violation("read_ahead", f"number {message.seq} had not been sent when the read ended", (read.id,))
            return


def _what(seen: Seen) -> str:
    return f"number {seen.message.seq} ({seen.message.content[:40]!r})"
