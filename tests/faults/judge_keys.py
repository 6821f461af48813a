"""One key, one request, one answer."""

from collections.abc import Iterator

from tests.faults.facts import Facts
from tests.faults.history import Operation
from tests.faults.requests import Request
from tests.faults.violations import Violation

DECIDED = (409, 422)  # refusals that look at the message; limits and missing rights say nothing of the key


def judge_keys(facts: Facts) -> Iterator[Violation]:
    for bodies in facts.requests:
        taken = [request for request in bodies if request.acknowledged]
        if len(taken) > 1:
            numbers = tuple(request.acknowledged[0].id for request in taken)
            yield Violation("key_reused", f"{len(taken)} different requests were taken under {taken[0].key!r}", numbers)
        for request in bodies:
            yield from _answers(request)
            if all(call.conversation not in facts.deletable for call in request.calls):
                yield from _refusals(request, alone=len(bodies) == 1)


def _answers(request: Request) -> Iterator[Violation]:
    answered = request.acknowledged
    for call in answered:
        asked = call.user_message
        if call.kind == "send" and asked is not None and asked.content != call.content:
            yield Violation("content_changed", f"{call.content!r} was taken as {asked.content!r}", (call.id,))
    for place in ("conversation", "turn", "user message", "reply"):
        told = {_told(call, place): call.id for call in reversed(answered) if _told(call, place)}
        if len(told) > 1:
            yield Violation("retry_differs", f"the same request was answered with {place}s {sorted(told)}", _ids(told))


def _told(call: Operation, place: str) -> str:
    if place == "conversation":
        return call.conversation
    if place == "turn":
        return call.turn_told
    message = call.user_message if place == "user message" else call.reply
    return message.id if message is not None else ""


def _refusals(request: Request, alone: bool) -> Iterator[Violation]:
    known = min(request.acknowledged, key=lambda call: call.known_at, default=None)
    for call in request.calls:
        if call.outcome != "refused":
            continue
        if call.code == "idempotency_mismatch" and alone:
            yield Violation("false_mismatch", f"no other body was sent under {call.key!r}", request.numbers)
        elif known is not None and known.known_at < call.began and call.http in DECIDED:
            said = f"answered before, then refused with {call.http} {call.code}"
            yield Violation("retry_refused", said, (known.id, call.id))


def _ids(told: dict[str, int]) -> tuple[int, ...]:
    return tuple(sorted(told.values()))
