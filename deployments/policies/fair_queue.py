"""Weighted fair queueing: start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996).

Each entry starts, in virtual time, where its tenant's last one finishes, but not before the entry that was taken last;
it finishes `cost / weight` later. The earliest start is taken first: whoever asks seldom is next in line, however much
the others have queued. Pushing and taking cost O(log n) in the number of tenants that wait.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, order=True)
class Entry(Generic[T]):
    start: float
    number: int
    tenant: str = field(compare=False)
    cost: float = field(compare=False)
    item: T = field(compare=False)
    gone: bool = field(default=False, compare=False)


@dataclass(slots=True)
class Flow(Generic[T]):
    """One tenant's: when its last entry finishes, and what waits, in order of arrival; `waiting` counts it."""

    weight: float = 1.0
    finish: float = 0.0
    waiting: int = 0
    entries: deque[Entry[T]] = field(default_factory=deque)


class FairQueue(Generic[T]):
    """`len()` is how many wait."""

    def __init__(self) -> None:
        self._virtual = 0.0
        self._heads: list[Entry[T]] = []  # a heap: each flow's first entry, and some that are gone
        self._flows: dict[str, Flow[T]] = {}
        self._numbers = itertools.count()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, tenant: str, weight: float, cost: float, item: T) -> Entry[T]:
        """`cost` > 0 in any unit, the same for all; `weight` > 0: the tenant's share."""
        entry = Entry(self._charge(tenant, weight, cost), next(self._numbers), tenant, cost, item)
        flow = self._flows[tenant]
        flow.entries.append(entry)
        flow.waiting += 1
        self._length += 1
        if flow.waiting == 1:
            heapq.heappush(self._heads, entry)
        return entry

    def pass_by(self, tenant: str, weight: float, cost: float) -> None:
        """Count an entry that did not have to wait."""
        self._virtual = self._charge(tenant, weight, cost)

    def entries(self) -> list[Entry[T]]:
        """All that wait, in no order."""
        return [entry for flow in self._flows.values() for entry in flow.entries if not entry.gone]

    def head(self, may: Callable[[Entry[T]], bool] = lambda entry: True) -> Entry[T] | None:
        """The next entry that may be taken; None where there is none. `may` is asked once for each tenant at most."""
        passed: list[Entry[T]] = []
        found: Entry[T] | None = None
        while self._heads and found is None:
            if self._heads[0].gone:
                heapq.heappop(self._heads)
            elif may(self._heads[0]):
                found = self._heads[0]
            else:
                passed.append(heapq.heappop(self._heads))
        for entry in passed:
            heapq.heappush(self._heads, entry)
        return found

    def take(self, entry: Entry[T]) -> None:
        """Remove an entry whose turn it is."""
        self._virtual = max(self._virtual, entry.start)
        self.remove(entry)

    def remove(self, entry: Entry[T]) -> None:
        """Take an entry out, wherever it stands; what it would have cost is not given back."""
        if entry.gone:
            return
        entry.gone = True
        flow = self._flows[entry.tenant]
        flow.waiting -= 1
        self._length -= 1
        was_first = flow.entries[0] is entry
        while flow.entries and flow.entries[0].gone:
            flow.entries.popleft()
        if was_first and flow.entries:
            heapq.heappush(self._heads, flow.entries[0])

    def crowding(self, tenant: str, weight: float) -> Entry[T] | None:
        """The entry that should make room for one of `tenant` in a full queue: the last of the tenant with the most
        for its weight; None where that is `tenant` itself (longest queue drop, McKenney 1990)."""
        flow = self._flows.get(tenant)
        own = (flow.waiting if flow else 0) + 1
        heaviest = max(
            (other for other in self._flows.values() if other.waiting),
            key=lambda other: other.waiting / other.weight,
            default=None,
        )
        if heaviest is None or heaviest is flow or heaviest.waiting / heaviest.weight <= own / weight:
            return None
        while heaviest.entries[-1].gone:
            heaviest.entries.pop()
        return heaviest.entries[-1]

    def _charge(self, tenant: str, weight: float, cost: float) -> float:
        """When an entry of this cost starts."""
        flow = self._flows.get(tenant)
        if flow is None:
            if len(self._flows) >= 1024 and len(self._flows) >= 2 * self._length:
                kept = {name: old for name, old in self._flows.items() if old.waiting or old.finish > self._virtual}
                self._flows = kept
            flow = self._flows[tenant] = Flow()
        start = max(self._virtual, flow.finish)
        flow.weight, flow.finish = weight, start + cost / weight
        return start
