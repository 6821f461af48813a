"""Repeats a call that failed in a way that may pass, while nothing has been said."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace

from deployments.policies import MAX_RETRY_AFTER, Call, Policy, Record, speaks
from deployments.policies.at_most import PATIENCE
from deployments.policies.breaker import Circuits
from deployments.providers import Piece, ProviderFailure

BACKOFF, MAX_BACKOFF = 0.5, 8.0  # seconds


class Retrying:
    """`provider.retries` times, after a random delay whose bound doubles (full jitter,
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), and not before the provider's
    Retry-After; not where the breaker is open by then, nor where the provider wants a longer pause than a turn bears.
    """

    def __init__(
        self, inner: Policy, circuits: Circuits, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._inner, self._circuits, self._sleep = inner, circuits, sleep

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        retry, reattach = 0, call.route.model.reattach
        while True:
            spoke, named, known = False, False, len(call.trace)
            try:
                async with contextlib.aclosing(self._inner.stream(call)) as pieces:
                    async for piece in pieces:
                        spoke, named = spoke or speaks(piece), named or (reattach and piece.ref is not None)
                        yield piece
                return
            except ProviderFailure as failure:
                if len(call.trace) == known:
                    call.trace.append(_refused(call, failure))
                # an answer that goes on over there is taken up again instead; one that was given up, begun anew
                lasting = call.resume is not None if failure.ended else named
                if spoke or lasting or not self._may_pass(call, failure) or retry >= call.route.provider.retries:
                    raise
                delay = max(random.uniform(0, min(BACKOFF * 2**retry, MAX_BACKOFF)), failure.retry_after or 0)
            await self._sleep(delay)
            retry, call = retry + 1, replace(call, why="retry", began=asyncio.Event())

    def _may_pass(self, call: Call, failure: ProviderFailure) -> bool:
        longest = PATIENCE if call.alternatives else MAX_RETRY_AFTER
        asked = failure.retry_after or 0
        return failure.retryable and asked <= longest and not self._circuits.refuses(call.route)


def _refused(call: Call, failure: ProviderFailure) -> Record:
    """A call that never reached its provider."""
    now = time.monotonic()
    return Record(call.route, call.request, call.why, started=now, ended=now, error=str(failure))
