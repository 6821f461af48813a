"""The policies, put together; one of each for all generations of a replica."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

from deployments.counting import Counting
from deployments.policies import Call, Record
from deployments.policies.at_most import AtMost
from deployments.policies.breaker import Breaking, Circuits, SharedBreakers
from deployments.policies.calling import Calling
from deployments.policies.continuing import Continuing
from deployments.policies.hedging import FirstTokens, Hedging
from deployments.policies.rate_limits import RateLimits
from deployments.policies.retrying import Retrying
from deployments.providers import Piece, Wire

Sleep = Callable[[float], Awaitable[None]]


class Composed:
    """Continuing(Retrying(Hedging(AtMost(Breaking(Calling(wires))))))"""

    def __init__(
        self,
        wires: Mapping[str, Wire],
        counting: Counting,
        breakers: SharedBreakers | None = None,
        sleep: Sleep = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.circuits = Circuits(breakers, monotonic)
        self.limits = RateLimits(monotonic)
        self.first_tokens = FirstTokens()
        self._counting = counting
        calling = Calling(wires, self.limits.learn, self._ended, counting.answer, monotonic)
        self.at_most = AtMost(
            Breaking(calling, self.circuits), self.circuits, self.limits, counting.cost, sleep, monotonic
        )
        hedging = Hedging(self.at_most, self.first_tokens, sleep)
        self._outermost = Continuing(Retrying(hedging, self.circuits, sleep), wires, monotonic)

    def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        return self._outermost.stream(call)

    async def close(self) -> None:
        await self._outermost.close()

    def _ended(self, record: Record) -> None:
        self._counting.learn(record)
        self.first_tokens.learn(record)
