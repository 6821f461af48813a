"""What was sent against what is stored: acknowledged exactly once, unanswered at most once, refused never."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.faults.facts import Facts
from tests.faults.history import Stored
from tests.faults.requests import Request
from tests.faults.violations import Violation


@dataclass(slots=True)
class Claims:
    """How often one text of a conversation must and may stand, by the requests that sent it."""

    requests: list[Request] = field(default_factory=list)
    must: int = 0
    may: int = 0

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(number for request in self.requests for number in request.numbers)


def judge_sent(facts: Facts) -> Iterator[Violation]:
    claims: dict[str, dict[str, Claims]] = defaultdict(lambda: defaultdict(Claims))
    anew: dict[str, list[Request]] = defaultdict(list)
    for bodies in facts.requests:
        taken = any(request.acknowledged for request in bodies)
        for request in bodies:
            call = request.first
            if call.kind == "send":
                claim = claims[call.conversation][call.content]
                claim.requests.append(request)
                claim.must += bool(request.acknowledged)
                claim.may += bool(request.acknowledged) if taken else not request.refused
            elif call.kind == "regenerate" and not request.refused:
                anew[call.conversation].append(request)
    there: dict[str, Counter[str]] = {}
    for stored in facts.history.stored.values():
        if stored.messages is not None:
            there[stored.conversation] = Counter(one.content for one in stored.messages if one.role == "user")
            yield from _texts(there[stored.conversation], claims[stored.conversation])
            yield from _anew(stored, anew[stored.conversation])
    yield from _one_of_a_key(facts, claims, there)


def _texts(there: Counter[str], claims: dict[str, Claims]) -> Iterator[Violation]:
    for content in there.keys() | claims.keys():
        number, claim = there[content], claims.get(content, Claims())
        said = f"{content[:60]!r} stands {number} times"
        if number < claim.must:
            yield Violation("message_lost", f"{said}, and was acknowledged {claim.must} times", claim.numbers)
        elif number > claim.may and not claim.requests:
            yield Violation("message_from_nowhere", f"{said}, and nobody sent it")
        elif number > claim.may:
            name = "sent_twice" if claim.may else "refused_but_there"
            yield Violation(name, f"{said}, and may {claim.may} times", claim.numbers)


def _one_of_a_key(
    facts: Facts, claims: dict[str, dict[str, Claims]], there: dict[str, Counter[str]]
) -> Iterator[Violation]:
    """Of different bodies under one key that were all left unanswered, at most one was taken."""
    for bodies in facts.requests:
        sends = [request for request in bodies if request.first.kind == "send" and not request.refused]
        if len(sends) < 2 or any(request.acknowledged for request in bodies):
            continue
        standing = []
        for conversation, content in {(one.first.conversation, one.first.content) for one in sends}:
            alone = all(one.key == sends[0].key for one in claims[conversation][content].requests)
            if alone and there.get(conversation, Counter())[content]:
                standing.append(content)
        if len(standing) > 1:
            numbers = tuple(number for request in sends for number in request.numbers)
            yield Violation("sent_twice", f"{sorted(standing)} were all taken under {sends[0].key!r}", numbers)


def _anew(stored: Stored, requests: list[Request]) -> Iterator[Violation]:
    """Replies of turns without a user message are those that were asked for anew."""
    asked = {message.turn for message in stored.messages or () if message.role == "user"}
    turns = {message.turn for message in stored.messages or () if message.role == "assistant"} - asked
    known = {call.turn_told for request in requests for call in request.acknowledged}
    unanswered = sum(not request.acknowledged for request in requests)
    if len(turns - known) > unanswered:
        said = f"{len(turns - known)} turns have a reply and no message, and {unanswered} may"
        yield Violation("reply_from_nowhere", said, tuple(number for one in requests for number in one.numbers))
