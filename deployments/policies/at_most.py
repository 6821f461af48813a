"""Bounds how many calls a provider and a model get at once; who waits is served fairly among tenants."""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

from deployments.policies import MAX_RETRY_AFTER, Call, Policy
from deployments.policies.breaker import Circuits
from deployments.policies.lane import Lane, Sleep
from deployments.policies.rate_limits import RateLimits
from deployments.providers import Piece, ProviderFailure

PATIENCE = 2.0  # seconds that a call waits for a rate limit where another model may answer instead
MOST_LANES = 4096


class AtMost:
    """`provider.max_connections` calls of a provider and `model.concurrency` of a model at once, in this replica.

    Who waits is served by weighted fair queueing among tenants, at the pace that the provider's rate limits allow;
    `cost` estimates a call's tokens. A queue longer than `provider.max_waiting` refuses (`QueueFull`) whoever has most
    in it. Calls whose breaker is open do not wait: they are refused further in. Whom a rate limit would stop for longer
    than a turn bears fails at once, also where it waits already.
    """

    def __init__(
        self,
        inner: Policy,
        circuits: Circuits,
        limits: RateLimits,
        cost: Callable[[Call], float],
        sleep: Sleep = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner, self._circuits, self._limits, self._cost = inner, circuits, limits, cost
        self._sleep, self._monotonic = sleep, monotonic
        self._models: OrderedDict[str, Lane] = OrderedDict()
        self._providers: OrderedDict[str, Lane] = OrderedDict()
        circuits.on_open = self._release
        limits.on_block = self._recheck

    @property
    def waiting(self) -> dict[str, int]:
        """How many calls wait, by provider."""
        found: dict[str, int] = {}
        for lane in (*self._providers.values(), *self._models.values()):
            found[lane.provider] = found.get(lane.provider, 0) + len(lane.queue)
        return found

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        asked, cost, room = self._monotonic(), self._cost(call), call.route.provider.max_waiting
        self._pause(call, cost)
        held: list[Lane] = []
        try:
            if not self._circuits.refuses(call.route):
                for lane in self._lanes(call):
                    if not await lane.enter(call, cost, room):
                        break
                    held.append(lane)
            call = replace(call, waited=self._monotonic() - asked)
            async with contextlib.aclosing(self._inner.stream(call)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            for lane in reversed(held):
                lane.leave(call)

    def _lanes(self, call: Call) -> tuple[Lane, Lane]:
        """The model's, which keeps the pace, then the provider's; their bounds are those of the catalog now."""
        provider, model = call.route.provider, call.route.model
        ours = self._lane(self._models, call.name, provider.name, self._pause, self._begin)
        theirs = self._lane(self._providers, provider.name, provider.name, _no_pause, _nothing)
        ours.bound, theirs.bound = model.concurrency, provider.max_connections
        return ours, theirs

    def _lane(
        self,
        lanes: OrderedDict[str, Lane],
        name: str,
        provider: str,
        pause: Callable[[Call, float], float],
        begin: Callable[[Call, float], None],
    ) -> Lane:
        lane = lanes.get(name)
        if lane is None:
            if len(lanes) >= MOST_LANES:
                for old in [name for name, lane in lanes.items() if lane.idle]:
                    del lanes[old]
            lane = lanes[name] = Lane(provider, pause, begin, self._sleep, self._monotonic)
        return lane

    def _pause(self, call: Call, cost: float) -> float:
        """Seconds that the call should wait; raises `ProviderFailure` where they are more than it may."""
        if self._circuits.refuses(call.route):
            return 0.0
        pause = self._limits.pause(call.route, cost)
        if pause > (PATIENCE if call.alternatives else MAX_RETRY_AFTER):
            what = f"provider {call.route.provider.name!r} wants no calls for {pause:.0f} s (rate limit)"
            raise ProviderFailure(what, retryable=False, retry_after=pause)
        return pause

    def _begin(self, call: Call, cost: float) -> None:
        self._limits.begin(call.route, cost)

    def _release(self, name: str) -> None:
        model = self._models.get(name)
        for lane in (*self._providers.values(), *([model] if model else [])):
            lane.release(name)

    def _recheck(self, name: str) -> None:
        if (model := self._models.get(name)) is not None:
            model.recheck()


def _no_pause(call: Call, cost: float) -> float:
    return 0.0


def _nothing(call: Call, cost: float) -> None:
    return
