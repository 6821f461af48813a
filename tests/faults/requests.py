"""Requests of a history: the calls that mean the same, because they repeat an idempotency key or stand alone."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.faults.history import Operation

CREATING = frozenset({"create", "send", "regenerate"})


@dataclass(slots=True)
class Request:
    """Calls with one key and one body; a call without a key is a request of its own. The service may carry it out once.

    `began`: it cannot have been carried out earlier.
    """

    key: str | None
    calls: list[Operation] = field(default_factory=list)

    @property
    def first(self) -> Operation:
        return self.calls[0]

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(call.id for call in self.calls)

    @property
    def acknowledged(self) -> list[Operation]:
        return [call for call in self.calls if call.acknowledged]

    @property
    def refused(self) -> bool:
        """Whether it was certainly not carried out."""
        return all(_untouched(call) for call in self.calls)

    @property
    def began(self) -> float:
        carried = [call.began for call in self.calls if not _untouched(call)]
        return min(carried or (call.began for call in self.calls))


def _untouched(call: Operation) -> bool:
    """Refused, and not because what it had made was deleted before it was answered."""
    return call.outcome == "refused" and call.http != 404


def requests_of(operations: Iterable[Operation]) -> list[list[Request]]:
    """All requests that create something; those that share a key stand together."""
    keys: dict[str, dict[str, Request]] = defaultdict(dict)
    for call in operations:
        if call.kind in CREATING:
            key = f"#{call.id}" if call.key is None else f"={call.key}"
            keys[key].setdefault(_body(call), Request(call.key)).calls.append(call)
    return [list(bodies.values()) for bodies in keys.values()]


def _body(call: Operation) -> str:
    place = {"create": "", "send": call.conversation, "regenerate": call.message_id}[call.kind]
    return json.dumps([call.kind, place, call.content, call.options], sort_keys=True)
