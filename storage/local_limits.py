"""Limits of one replica alone: its share of each, while nobody can be asked who counts for all."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from domain import gcra
from domain.limits import MOST_OWED, Rule, State, Taken

BOUND = 20_000  # buckets; of more, those that were used longest ago begin anew


class LocalLimits:
    """`domain.ports.RateLimits`, of which each rule allows a `replicas`-th part, and at least one.

    `hold` counts a turn that was let in elsewhere: it is one of those that run here.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, bound: int = BOUND) -> None:
        self.replicas = 1
        self._now, self._bound = now, bound
        self._buckets: OrderedDict[str, float] = OrderedDict()
        self._turns: dict[str, set[str]] = {}

    async def take(self, request: str, rules: Sequence[Rule]) -> Taken:
        now = self._now()
        refused, longest, waits = None, -1.0, []
        shares = [rule._replace(limit=max(1, rule.limit // self.replicas)) for rule in rules]
        for place, rule in enumerate(shares):
            if rule.kind == "turns":
                wait = 1.0 if len(self._turns.get(rule.bucket, ())) >= rule.limit else 0.0
            else:
                wait = gcra.wait(self._tat(rule, now), now, rule.limit, rule.cost)
            waits.append(wait if wait > gcra.SLACK else 0.0)
            if waits[-1] and wait > longest:
                refused, longest = place, wait
        if refused is None:
            self._take(request, shares, now)
        states = [self._state(rule, now) for rule in shares]
        waiting = [State(state.remaining, wait or state.seconds) for state, wait in zip(states, waits, strict=True)]
        return Taken(refused, waiting)

    async def settle(self, request: str, rules: Sequence[Rule], by: int) -> None:
        self.end(request, rules, by)

    def end(self, request: str, rules: Sequence[Rule], by: int) -> None:
        """As `settle`."""
        now = self._now()
        for rule in rules:
            if rule.kind == "turns":
                self._leave(rule.bucket, request)
            elif rule.kind == "tokens" and by:
                self._put(rule.bucket, gcra.taken(self._tat(rule, now), now, max(1, rule.limit // self.replicas), by))

    def hold(self, request: str, rules: Sequence[Rule]) -> None:
        for rule in rules:
            if rule.kind == "turns":
                self._turns.setdefault(rule.bucket, set()).add(request)

    def _take(self, request: str, shares: Sequence[Rule], now: float) -> None:
        self.hold(request, shares)
        for rule in shares:
            if rule.kind != "turns":
                self._put(rule.bucket, gcra.taken(self._tat(rule, now), now, rule.limit, rule.cost))

    def _state(self, rule: Rule, now: float) -> State:
        if rule.kind == "turns":
            return State(max(0, rule.limit - len(self._turns.get(rule.bucket, ()))), 0.0)
        tat = self._tat(rule, now)
        return State(gcra.remaining(tat, now, rule.limit), tat - now)

    def _tat(self, rule: Rule, now: float) -> float:
        return gcra.sane(self._buckets.get(rule.bucket, now), now, MOST_OWED if rule.kind == "tokens" else 0.0)

    def _put(self, bucket: str, tat: float) -> None:
        self._buckets[bucket] = tat
        self._buckets.move_to_end(bucket)
        if len(self._buckets) > self._bound:
            self._buckets.popitem(last=False)

    def _leave(self, bucket: str, request: str) -> None:
        held = self._turns.get(bucket)
        if held is not None:
            held.discard(request)
            if not held:
                del self._turns[bucket]
