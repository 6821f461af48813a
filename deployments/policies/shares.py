"""How many places each tenant holds, and how many are kept free of those who live beyond their share.

A free place costs nobody anything; a taken one costs the next tenant its wait for whoever holds it. So a tenant that
lives beyond its share (on average over `WINDOW`, or in a burst) gets further places only beside those that all who live
within theirs used lately: the most that they held together in that time. Who is alone gets them all.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 10.0  # seconds
AVERAGE, BURST = 1.25, 2.0  # shares that a tenant may have on average, and at once, and still lives within its own
SWEEP = 1.0  # seconds between two looks at who is gone


@dataclass(slots=True)
class Holding:
    """One tenant's places; `mean` of them up to `since`; `beyond`: whether it lives beyond its share."""

    weight: float
    since: float
    asked: float
    places: int = 0
    mean: float = 0.0
    beyond: bool = False

    def pass_to(self, now: float) -> None:
        self.mean += (self.places - self.mean) * -math.expm1((self.since - now) / WINDOW)
        self.since = now


class Shares:
    """Of one lane. Tenants count until `WINDOW` seconds after their last call began."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._holdings: dict[str, Holding] = {}
        self._weights = 0.0
        self._within = 0  # places of all who live within their shares
        self._most, self._before = 0, 0  # of these at most, in this half of the window and in the one before it
        self._swept = self._turned = monotonic()

    def asks(self, tenant: str, weight: float) -> None:
        """A call of this tenant wants a place."""
        now = self._monotonic()
        if now - self._swept > SWEEP:
            self.sweep()
        holding = self._of(tenant, weight)
        self._weights += weight - holding.weight
        holding.weight, holding.asked = weight, now

    def takes(self, tenant: str, weight: float) -> None:
        self._change(self._of(tenant, weight), 1)

    def gives(self, tenant: str) -> None:
        self._change(self._holdings[tenant], -1)

    def may(self, tenant: str, weight: float, busy: int, bound: int) -> bool:
        """Whether a call of this tenant may have one of `bound` places, of which so many are taken."""
        if busy >= bound:
            return False
        holding = self._of(tenant, weight)
        holding.pass_to(self._monotonic())
        own = bound * holding.weight / self._weights
        burst = min(BURST * own, (own + bound) / 2)  # of two tenants, neither takes all at once
        alone = own >= bound
        self._judge(holding, not alone and (holding.places >= burst or holding.mean > AVERAGE * own))
        if not holding.beyond or holding.places < own:
            return True
        kept = max(self._most, self._before) - self._within
        return busy + kept < bound

    def _change(self, holding: Holding, by: int) -> None:
        holding.pass_to(self._monotonic())
        holding.places += by
        if not holding.beyond:
            self._within += by
            self._most = max(self._most, self._within)

    def _judge(self, holding: Holding, beyond: bool) -> None:
        if beyond != holding.beyond:
            holding.beyond = beyond
            self._within += -holding.places if beyond else holding.places
            self._most = max(self._most, self._within)

    def _of(self, tenant: str, weight: float) -> Holding:
        holding = self._holdings.get(tenant)
        if holding is None:  # new, or it has waited for longer than the window
            now = self._monotonic()
            holding = self._holdings[tenant] = Holding(weight, now, now)
            self._weights += weight
        return holding

    def sweep(self) -> None:
        """Forget who is gone, and what was used too long ago."""
        now = self._swept = self._monotonic()
        if now - self._turned >= WINDOW / 2:
            self._turned, self._before, self._most = now, self._most, self._within
        self._holdings = {
            name: holding for name, holding in self._holdings.items() if holding.places or now - holding.asked <= WINDOW
        }
        self._weights = sum(holding.weight for holding in self._holdings.values())
