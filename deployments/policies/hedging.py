"""Asks a second time where the first token is later than usual (Dean, Barroso, The Tail at Scale, CACM 2013)."""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace

from deployments.policies import Call, Policy, Record, name_of, speaks
from deployments.providers import Piece, ProviderFailure

LEAST, MOST = 20, 200  # first-token times that are needed, and remembered
MOST_MODELS = 4096


class FirstTokens:
    """Recent times to the first token, by model."""

    def __init__(self) -> None:
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def learn(self, record: Record) -> None:
        if record.first is None or record.why in ("continued", "reattached"):
            return
        name = name_of(record.route)
        times = self._times.get(name)
        if times is None:
            times = self._times[name] = deque(maxlen=MOST)
            if len(self._times) > MOST_MODELS:
                self._times.popitem(last=False)
        times.append(record.first - record.started)

    def p95(self, name: str) -> float | None:
        """Seconds; None where too little is known."""
        times = sorted(self._times.get(name, ()))
        return times[int(0.95 * (len(times) - 1))] if len(times) >= LEAST else None


class Contender:
    """One of two calls that race: reads up to the first piece that says something."""

    def __init__(self, inner: Policy, call: Call) -> None:
        self.call = replace(call, trace=[], began=asyncio.Event())
        self.early: list[Piece] = []
        self.rest = inner.stream(self.call)
        self.speaking = asyncio.create_task(self._speak())

    async def _speak(self) -> None:
        """Raises what the call raises."""
        async for piece in self.rest:
            self.early.append(piece)
            if speaks(piece) or piece.finish_reason is not None:
                return

    @property
    def failed(self) -> bool:
        return self.speaking.done() and (self.speaking.cancelled() or self.speaking.exception() is not None)

    async def close(self) -> None:
        self.speaking.cancel()
        await asyncio.gather(self.speaking, return_exceptions=True)
        with contextlib.suppress(ProviderFailure):
            await self.rest.aclose()


class Hedging:
    """For models with `hedge`: a second call once the first has been silent for the p95 of the model's recent times;
    whoever speaks first answers, the other is closed."""

    def __init__(
        self,
        inner: Policy,
        first_tokens: FirstTokens,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._inner, self._first_tokens, self._sleep = inner, first_tokens, sleep

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        hedges = call.route.model.hedge and not call.route.model.reattach  # whose second answer would go on unheard
        delay = self._first_tokens.p95(call.name) if hedges else None
        if delay is None:
            async with contextlib.aclosing(self._inner.stream(call)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        contenders = [Contender(self._inner, call)]
        winner: Contender | None = None
        try:
            if await self._is_late(contenders[0], delay):
                contenders.append(Contender(self._inner, replace(call, why="hedge")))
            winner = await _first_of(contenders)
            for other in contenders:
                if other is not winner:
                    await other.close()
            for piece in winner.early:
                yield piece
            async for piece in winner.rest:
                yield piece
        finally:
            for contender in contenders:
                await contender.close()
                if contender is not winner and winner is not None:
                    _lose(contender.call.trace)
                call.trace.extend(contender.call.trace)

    async def _is_late(self, contender: Contender, delay: float) -> bool:
        """Wait for the first call's word, from when the provider was called; True if it does not come in time."""
        began = asyncio.ensure_future(contender.call.began.wait())
        try:
            await asyncio.wait({began, contender.speaking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            began.cancel()
        if contender.speaking.done():
            return False
        late = asyncio.ensure_future(self._sleep(delay))
        try:
            await asyncio.wait({late, contender.speaking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            late.cancel()
        return not contender.speaking.done()


async def _first_of(contenders: list[Contender]) -> Contender:
    """The first that speaks; raises what the first call raised where none does."""
    while True:
        waiting = [contender for contender in contenders if not contender.failed]
        if not waiting:
            await contenders[0].speaking
        if spoken := [contender for contender in waiting if contender.speaking.done()]:
            return spoken[0]
        await asyncio.wait({contender.speaking for contender in waiting}, return_when=asyncio.FIRST_COMPLETED)


def _lose(trace: list[Record]) -> None:
    for record in trace:
        record.lost = True
        if record.error in (None, "cancelled"):
            record.error = "another call answered first"
