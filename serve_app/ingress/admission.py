"""The gate before new turns and completions: under overload it refuses at once what would only wait and slow the rest.

One limit for each model that callers name, in each ingress replica: what one provider cannot take does not keep turns
from another. Over the limit, a tenant with less than its share of what runs is still let in.
"""

import math
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from domain.errors import Overloaded
from serve_app.ingress import metrics
from serve_app.ingress.concurrency_limit import ConcurrencyLimit

MODELS = 256  # names are the callers' choice: what is kept of them is bounded
LONGEST = 60.0  # seconds that a refused caller is told to wait, at the most
SPREAD = 0.25  # share by which that differs from caller to caller


class Refused(Overloaded):
    """Too many turns wait: this one was not begun."""

    def __init__(self, retry_after: int) -> None:
        super().__init__()
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type["Refused"], tuple[int]]:
        return type(self), (self.retry_after,)


class Admitted:
    """A turn that was let in. Its `leave` must be called, once. `measured`: its wait for a first text counts."""

    def __init__(self, gate: "_Gate", tenant: str, began: float) -> None:
        self._gate, self._tenant, self._began = gate, tenant, began
        self.measured = True

    def first_text(self) -> None:
        """Its first text is on its way to the caller."""
        if self.measured:
            self._gate.first_text(self._began)

    def leave(self) -> None:
        """It is over, or nobody listens any more."""
        self._gate.leave(self._tenant)


class Admission:
    """`wait`: seconds that a first text may wait for others; 0 lets everybody in."""

    def __init__(self, wait: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._wait, self._clock = wait, clock
        self._gates: OrderedDict[str, _Gate] = OrderedDict()

    def enter(self, tenant: str, model: str) -> Admitted | None:
        """Raises `Refused`. None where there is no gate."""
        if not self._wait:
            return None
        gate = self._gates.get(model)
        if gate is None:
            self._forget()
            gate = self._gates[model] = _Gate(ConcurrencyLimit(self._wait), self._clock)
        self._gates.move_to_end(model)
        return gate.enter(tenant)

    def _forget(self) -> None:
        """The models that were asked for longest ago, but none that is busy."""
        if len(self._gates) >= MODELS:
            idle = next((model for model, gate in self._gates.items() if not gate.running), None)
            if idle is not None:
                del self._gates[idle]


class _Gate:
    """One model's. `running` counts its turns that were let in and have not left."""

    def __init__(self, limit: ConcurrencyLimit, clock: Callable[[], float]) -> None:
        self._limit, self._clock = limit, clock
        self._tenants: Counter[str] = Counter()
        self.running = 0
        self._next = 0.0  # when the next of those that were refused should come

    def enter(self, tenant: str) -> Admitted:
        now = self._clock()
        if not self._limit.admits(self.running, now) and not self._below_share(tenant):
            metrics.REFUSED.inc()
            metrics.LIMIT.set(self._limit.value)
            raise Refused(self._retry_after(now))
        self.running += 1
        self._tenants[tenant] += 1
        return Admitted(self, tenant, now)

    def first_text(self, began: float) -> None:
        self._limit.first_text(began, self._clock(), self.running)

    def leave(self, tenant: str) -> None:
        self.running -= 1
        self._tenants[tenant] -= 1
        if not self._tenants[tenant]:
            del self._tenants[tenant]

    def _below_share(self, tenant: str) -> bool:
        """All but the largest tenant together stay below the limit: what runs is at most twice as much."""
        limit, tenants = self._limit.value, len(self._tenants.keys() | {tenant})
        if self._tenants[tenant] + 1 > max(1.0, limit / tenants):
            return False
        return self.running - max(self._tenants.values(), default=0) < limit

    def _retry_after(self, now: float) -> int:
        """Seconds: the refused are given one moment each, as far apart as first texts come."""
        drain = max(self._limit.drain, 0.1)
        self._next = min(max(self._next, now) + 1 / drain, now + LONGEST)
        wait = (self._next - now) * (1 + random.uniform(0, SPREAD))
        return math.ceil(min(max(wait, 1.0), LONGEST))
