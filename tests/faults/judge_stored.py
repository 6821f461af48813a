"""What a conversation holds at the end: each message once, numbers without a gap, one reply to each that was asked."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from domain.turn import TurnStatus
from tests.faults.facts import Facts
from tests.faults.history import Message, Stored
from tests.faults.violations import Violation


def judge_stored(facts: Facts) -> Iterator[Violation]:
    for first, other in {first.message.id: (first, other) for first, other in facts.twice}.values():
        said = f"{first.message} and {other.message}"
        yield Violation("message_changed", said, tuple(sorted({*first.operations, *other.operations})))
    for stored in facts.history.stored.values():
        if stored.messages is None:
            continue
        yield from _numbers(stored.messages)
        yield from _turns(stored, stored.messages)
        yield from _standing(facts, stored)
        there = {message.id for message in stored.messages}
        for seen in facts.seen[stored.conversation].values():
            if seen.message.id not in there:
                said = f"message {seen.message.seq} ({seen.message.content[:40]!r}) is not there any more"
                yield Violation("message_lost", said, seen.operations)


def _numbers(messages: Sequence[Message]) -> Iterator[Violation]:
    for name, number in Counter(message.id for message in messages).items():
        if number > 1:
            yield Violation("message_repeated", f"{name} stands {number} times")
    numbers = Counter(message.seq for message in messages)
    for seq, number in numbers.items():
        if number > 1:
            yield Violation("seq_repeated", f"{number} messages have the number {seq}")
    if missing := set(range(1, max(numbers, default=0) + 1)) - numbers.keys():
        yield Violation("seq_gap", f"nothing has the number {min(missing)}")


def _turns(stored: Stored, messages: Sequence[Message]) -> Iterator[Violation]:
    asked, replies = _by_turn(messages, "user"), _by_turn(messages, "assistant")
    states = {turn.id: turn.status for turn in stored.turns}
    for turn, found in asked.items():
        if len(found) > 1:
            yield Violation("two_user_messages", f"{turn} has {len(found)}")
    for turn, found in replies.items():
        names = {reply.id for reply in found}
        final = [reply for reply in found if stored.superseded.get(reply.id) not in names]
        if len(final) > 1:
            yield Violation("two_replies", f"{turn} has {len(final)}")
        if turn in states and found[0].status != states[turn]:
            yield Violation("reply_status", f"{turn} is {states[turn]}, its reply {found[0].status}")
        if turn in asked and found[0].seq < asked[turn][0].seq:
            yield Violation("reply_before_message", f"{turn}: {found[0].seq} stands before {asked[turn][0].seq}")
    for turn, status in states.items():
        if not status.ended:
            yield Violation("never_ended", f"{turn} is still {status}")
        if status is TurnStatus.COMPLETED and turn not in replies:
            yield Violation("reply_lost", f"{turn} has completed without a reply")
    answered = [turn for turn in sorted(asked, key=lambda turn: asked[turn][0].seq) if turn in replies]
    for earlier, later in pairwise(answered):
        if replies[earlier][0].seq > replies[later][0].seq:
            yield Violation("replies_out_of_order", f"{later} was answered before {earlier}")


def _standing(facts: Facts, stored: Stored) -> Iterator[Violation]:
    """Of the replies to one message, which is that of the turn or what the turn answers anew, one stands."""
    asked = {message.id: message.turn for message in stored.messages or () if message.role == "user"}
    anew = {
        call.turn_told: asked[message.id]
        for call in facts.calls[stored.conversation]
        if call.kind == "regenerate"
        for message, _ in call.sightings()
        if message.id in asked
    }
    replies: dict[str, list[str]] = defaultdict(list)
    for message in stored.messages or ():
        if message.role == "assistant" and message.id in stored.superseded:
            replies[anew.get(message.turn, message.turn)].append(message.id)
    for turn, found in replies.items():
        standing = [reply for reply in found if stored.superseded[reply] is None]
        elsewhere = any(stored.superseded[reply] not in (None, *found) for reply in found)  # to a call without answer
        if len(standing) > 1 or not (standing or elsewhere):
            yield Violation("two_standing_replies", f"{len(standing)} of the replies of {turn} stand")


def _by_turn(messages: Sequence[Message], role: str) -> dict[str, list[Message]]:
    found: dict[str, list[Message]] = defaultdict(list)
    for message in messages:
        if message.role == role:
            found[message.turn].append(message)
    return found
