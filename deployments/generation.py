"""One generation: which model is called, how often, for how long, and what came of it."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Literal

from deployments.outcome import error_body, estimate
from deployments.providers import Piece, ProviderFailure, Wire
from deployments.recording import Recording
from domain.errors import GenerationError, GenerationTimeout
from domain.generation import Attempt, Ending, GenerationRequest, Outcome
from domain.message import Usage
from domain.model import Catalog, Provider, Route

log = logging.getLogger(__name__)

BACKOFF, MAX_BACKOFF = 0.5, 8.0  # seconds
MAX_RETRY_AFTER = 20.0  # seconds that a provider may ask us to wait
AFTER_FINISH = 2.0  # seconds that usage and [DONE] may take once the text is whole

Sleep = Callable[[float], Awaitable[None]]


class Generation:
    """Calls the request's model, and those of its chain while nothing has been said.

    A call that fails in a way that may pass is repeated `provider.retries` times, after a random delay whose bound
    doubles (full jitter, https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), and not before the
    provider's Retry-After. Other failures go to the chain at once. After the first text nothing is repeated.
    """

    def __init__(
        self,
        request: GenerationRequest,
        catalog: Catalog,
        wires: Mapping[str, Wire],
        recording: Recording,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.recording = recording
        self.request, self._catalog, self._wires, self._sleep = request, catalog, wires, sleep
        self._text: list[str] = []
        self._model: str | None = None
        self._finish_reason: str | None = None
        self._usage: Usage | None = None
        self._first_token: float | None = None
        self._attempts: list[Attempt] = []
        self._producing: asyncio.Task[Any] | None = None
        self._cancelled = False

    @property
    def _finished(self) -> bool:
        return self._finish_reason is not None

    def cancel(self) -> None:
        """End the generation as cancelled, with the text so far; nothing happens if the model has finished."""
        if self._producing is not None and not self._cancelled:
            self._producing.cancel()
        self._cancelled = True

    async def run(self) -> Outcome:
        """Generate; every failure is told by the outcome. Cancelling this call itself abandons the generation."""
        error: GenerationError | None = None
        ending: Ending = "completed"
        try:
            if self._cancelled:
                ending = "cancelled"
            else:
                self._producing = asyncio.current_task()
                await self._produce()
        except asyncio.CancelledError:
            if not self._cancelled or self._producing is None or self._producing.uncancel():
                raise
            ending = "cancelled"
        except GenerationError as failure:
            ending, error = "failed", failure
        except Exception:
            log.exception("generation %s", self.request.name)
            ending, error = "failed", GenerationError("the generation failed inside the service")
        finally:
            self._producing = None
        return self._outcome(ending, error)

    async def _produce(self) -> None:
        failure: ProviderFailure | None = None
        for model in dict.fromkeys((self.request.model, *self.request.chain)):
            route = self._catalog.find(model)
            if route is None:
                failure = failure or ProviderFailure(f"the model {model!r} is not configured any more")
                continue
            if failure is not None:
                await self._announce(model, f"{self._model or self.request.model} did not answer")
            self._model = model
            try:
                await self._call_and_retry(route)
            except ProviderFailure as reason:
                failure = reason
                if self._text:
                    break
            else:
                return
        assert failure is not None
        raise (GenerationTimeout if failure.timed_out else GenerationError)(str(failure)) from failure

    async def _announce(self, model: str, reason: str) -> None:
        # A cancel waits for this write: it must be known whether the event got its number.
        task, self._producing = self._producing, None
        await self.recording.replace_model(model, reason)
        self._producing = task
        if self._cancelled:
            raise asyncio.CancelledError

    async def _call_and_retry(self, route: Route) -> None:
        for retry in range(route.provider.retries + 1):
            try:
                await self._call(route)
            except ProviderFailure as failure:
                if self._text or not failure.retryable or retry == route.provider.retries:
                    raise
                delay = random.uniform(0, min(BACKOFF * 2**retry, MAX_BACKOFF))
                await self._sleep(max(delay, min(failure.retry_after or 0, MAX_RETRY_AFTER)))
            else:
                return

    async def _call(self, route: Route) -> None:
        """One call of the provider, with its place in the trace."""
        self._finish_reason, self._usage, self._first_token = None, None, None
        started_at, started, error = time.time(), time.monotonic(), "cancelled"
        wire = self._wires.get(route.provider.kind)
        try:
            if wire is None:
                raise ProviderFailure(f"models of kind {route.provider.kind!r} are not served here")
            async with contextlib.aclosing(wire.stream(route, self.request)) as pieces:
                await self._listen(pieces, route.provider)
            if not self._finished:
                raise ProviderFailure(f"provider {route.provider.name!r} ended its answer too early", True)
            error = ""
        except ProviderFailure as failure:
            error = str(failure)
            raise
        finally:
            first = None if self._first_token is None else (self._first_token - started) * 1000
            total = (time.monotonic() - started) * 1000
            status: Literal["ok", "error"] = "error" if error else "ok"
            self._attempts.append(
                Attempt(route.id, route.provider.name, status, error or None, started_at, first, total)
            )

    async def _listen(self, pieces: AsyncIterator[Piece], provider: Provider) -> None:
        """Take what arrives, within the provider's time limits."""
        limits = provider.timeouts
        end = time.monotonic() + limits.total
        limit, late = limits.first_token, f"did not begin to answer within {limits.first_token:g} s"
        while True:
            left = end - time.monotonic()
            if left < limit:
                limit, late = left, f"did not finish within {limits.total:g} s"
            try:
                async with asyncio.timeout(limit):
                    piece = await anext(pieces, None)
            except TimeoutError:
                if self._finished:
                    return
                raise ProviderFailure(f"provider {provider.name!r} {late}", timed_out=True) from None
            if piece is None:
                return
            self._take(piece)
            limit, late = limits.idle, f"fell silent for {limits.idle:g} s"
            if self._finished:
                limit = min(AFTER_FINISH, limit)

    def _take(self, piece: Piece) -> None:
        if text := piece.text.replace("\0", ""):  # PostgreSQL's text cannot hold it
            if self._first_token is None:
                self._first_token = time.monotonic()
            self._text.append(text)
            self.recording.add(text)
        self._finish_reason = piece.finish_reason or self._finish_reason
        self._usage = piece.usage or self._usage

    def _outcome(self, ending: Ending, error: GenerationError | None) -> Outcome:
        text = "".join(self._text)
        estimated = self._usage is None and bool(text)
        return Outcome(
            ending=ending,
            text=text,
            model=self._model or self.request.model,
            finish_reason=self._finish_reason,
            usage=estimate(self.request.messages, text) if estimated else self._usage,
            estimated=estimated,
            error=error_body(error, self.request.turn_id) if error else None,
            status=error.status if error else 502,
            attempts=tuple(self._attempts),
        )
