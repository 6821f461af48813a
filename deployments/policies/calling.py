"""The innermost policy: one call of a provider, within its time limits, with its record."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from typing import Any

from deployments.policies import Call, Record, hearing, speaks
from deployments.providers import Piece, ProviderFailure, Wire
from domain.generation import GenerationRequest
from domain.model import Route, Timeouts

AFTER_FINISH = 2.0  # seconds that usage and [DONE] may take once the text is whole

Learn = Callable[[Route, int, Mapping[str, str]], None]
Ended = Callable[[Record], None]
Count = Callable[[Route, str], int]


class Calling:
    """Calls the wire of the provider's kind. `learn`: told of an answer's headers; `ended`: of every record at its end;
    `count`: tokens of a text that was said before."""

    def __init__(
        self,
        wires: Mapping[str, Wire],
        learn: Learn,
        ended: Ended,
        count: Count,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wires, self._learn, self._ended, self._count = wires, learn, ended, count
        self._monotonic = monotonic

    async def stream(self, call: Call) -> AsyncGenerator[Piece, None]:
        record = Record(call.route, call.request, call.why, call.waited, started=self._monotonic())
        call.trace.append(record)
        call.began.set()
        try:
            async with (
                contextlib.aclosing(self._open(call, record)) as pieces,
                contextlib.aclosing(self._within(pieces, call, record)) as arriving,
            ):
                async for piece in arriving:
                    yield piece
            if record.finish_reason is None:
                raise ProviderFailure(f"provider {call.route.provider.name!r} ended its answer too early", True)
            record.error = None
        except ProviderFailure as failure:
            record.error = str(failure)
            refused = not (failure.retryable or failure.timed_out)  # a page of another server, for one
            record.sent = record.sent and (record.spoke or not refused)
            raise
        finally:
            record.ended = self._monotonic()
            self._ended(record)

    def _open(self, call: Call, record: Record) -> AsyncGenerator[Piece, None]:
        route = call.route
        wire = self._wires.get(route.provider.kind)
        if wire is None:
            raise ProviderFailure(f"models of kind {route.provider.kind!r} are not served here")
        if call.resume is not None:
            ref, cursor, said = call.resume
            record.ref, record.received = ref, list(said)  # the provider counts the whole answer, once
            for earlier in call.trace[:-1]:
                earlier.merged = earlier.merged or earlier.ref == ref
            resuming: Any = wire
            stream: AsyncGenerator[Piece, None] = resuming.resume(route, call.request, ref, cursor)
            return stream
        return wire.stream(route, self._shortened(route, call.request))

    def _shortened(self, route: Route, request: GenerationRequest) -> GenerationRequest:
        """A limit on the answer's tokens counts what was said before, too."""
        limit = request.parameters.get("max_tokens") or route.model.defaults.max_tokens
        if not request.prefix or limit is None:
            return request
        left = max(limit - self._count(route, request.prefix), 1)
        return replace(request, parameters={**request.parameters, "max_tokens": left})

    async def _within(
        self, pieces: AsyncGenerator[Piece, None], call: Call, record: Record
    ) -> AsyncGenerator[Piece, None]:
        """What arrives, within the provider's time limits; their clock is the event loop's."""
        provider, limits = call.route.provider, call.route.provider.timeouts
        end = time.monotonic() + limits.total
        limit, late = limits.first_token, f"did not begin to answer within {limits.first_token:g} s"

        def heard(status: int, headers: Mapping[str, str]) -> None:
            record.status, record.sent = status, status == 200
            self._learn(call.route, status, headers)

        while True:
            if (left := end - time.monotonic()) < limit:
                limit, late = left, f"did not finish within {limits.total:g} s"
            token = hearing.set(heard)
            try:
                async with asyncio.timeout(limit):
                    piece = await anext(pieces, None)
            except TimeoutError:
                record.sent = True
                if record.finish_reason is not None:
                    return
                raise ProviderFailure(f"provider {provider.name!r} {late}", timed_out=True) from None
            except (asyncio.CancelledError, GeneratorExit):
                record.sent = record.status in (None, 200)
                raise
            finally:
                hearing.reset(token)
            if piece is None:
                return
            self._take(piece, record)
            yield piece
            limit, late = self._next(limits, record)

    def _take(self, piece: Piece, record: Record) -> None:
        record.sent = True
        if speaks(piece):
            record.first = record.first or self._monotonic()
            record.chunks += 1
            if piece.text:
                record.received.append(piece.text)
            for delta in piece.tool_calls:
                function = delta.get("function") or {}
                record.received += [str(function.get("name") or ""), str(function.get("arguments") or "")]
        record.finish_reason = piece.finish_reason or record.finish_reason
        record.usage = piece.usage or record.usage
        record.ref = piece.ref or record.ref

    def _next(self, limits: Timeouts, record: Record) -> tuple[float, str]:
        if record.finish_reason is not None:
            return min(AFTER_FINISH, limits.idle), ""
        # who thinks before the first token may be silent for as long as before the first sign of life
        silence = limits.idle if record.spoke else max(limits.idle, limits.first_token)
        return silence, f"fell silent for {silence:g} s"
