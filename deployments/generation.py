"""One generation: which models are called, what they say, and what came of it."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from deployments.outcome import charged, error_body, merge_tool_calls
from deployments.policies import Call, Policy, QueueFull, Record
from deployments.providers import Piece, ProviderFailure
from deployments.recording import Recording
from domain.errors import BrainError, GenerationError, GenerationTimeout, Overloaded
from domain.generation import Attempt, Ending, GenerationRequest, Outcome, Why
from domain.model import Catalog, Route

log = logging.getLogger(__name__)


class Generation:
    """Asks the request's model, and those of its chain, in order, while nothing has been said.

    How a model is called (bounds, retries, breakers …) is the business of `policy`. `attempt` makes a call's record an
    entry of the trace.
    """

    def __init__(
        self,
        request: GenerationRequest,
        catalog: Catalog,
        policy: Policy,
        recording: Recording,
        attempt: Callable[[Record], Attempt],
    ) -> None:
        self.recording = recording
        self.request, self._catalog, self._policy, self._attempt = request, catalog, policy, attempt
        self.trace: list[Record] = []
        self._text: list[str] = []
        self._tool_calls: dict[int, dict[str, Any]] = {}
        self._model: str | None = None
        self._finish_reason: str | None = None
        self._producing: asyncio.Task[Any] | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """End the generation as cancelled, with the text so far; nothing happens if the model has finished."""
        if self._producing is not None and not self._cancelled:
            self._producing.cancel()
        self._cancelled = True

    async def run(self) -> Outcome:
        """Generate; failures of models are told by the outcome. Cancelling this call itself abandons the generation.

        Raises `Overloaded` where too many wait for the model, and nothing has been said of this generation.
        """
        error: BrainError | None = None
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
        except Overloaded as failure:
            if not self.recording.models:
                raise
            ending, error = "failed", failure
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
        routes = self._routes()
        for place, (model, route) in enumerate(routes):
            if route is None:
                failure = failure or ProviderFailure(f"the model {model!r} is not configured any more")
                continue
            if failure is not None:
                await self._announce(model, f"{self._model or self.request.model} did not answer")
            self._model, self._finish_reason = model, None
            others = any(other is not None for _, other in routes[place + 1 :])
            why: Why = "continued" if self.request.prefix else "fallback" if failure else "first"
            call = Call(route, _fitting(self.request, route), self.trace, why, alternatives=others)
            try:
                await self._listen(call)
            except ProviderFailure as reason:
                failure = reason
                if self._text or self._tool_calls:
                    break
            else:
                return
        assert failure is not None
        if isinstance(failure, QueueFull):
            raise Overloaded(str(failure)) from failure
        raise (GenerationTimeout if failure.timed_out else GenerationError)(str(failure)) from failure

    def _routes(self) -> list[tuple[str, Route | None]]:
        """What may answer, in order. Text that was said already belongs to its model: no other goes on from it."""
        chain = () if self.request.prefix else self.request.chain
        return [(model, self._catalog.find(model)) for model in dict.fromkeys((self.request.model, *chain))]

    async def _announce(self, model: str, reason: str) -> None:
        # A cancel waits for this write: it must be known whether the event got its number.
        task, self._producing = self._producing, None
        await self.recording.replace_model(model, reason)
        self._producing = task
        if self._cancelled:
            raise asyncio.CancelledError

    async def _listen(self, call: Call) -> None:
        async with contextlib.aclosing(self._policy.stream(call)) as pieces:
            async for piece in pieces:
                self._take(piece)

    def _take(self, piece: Piece) -> None:
        if text := piece.text.replace("\0", ""):  # PostgreSQL's text cannot hold it
            self._text.append(text)
            self.recording.add(text)
        if piece.tool_calls:
            merge_tool_calls(self._tool_calls, piece.tool_calls)
            self.recording.add_tool_calls(piece.tool_calls)
        self._finish_reason = piece.finish_reason or self._finish_reason

    def _called(self) -> tuple[dict[str, Any], ...]:
        """The calls of tools, as far as there may be any: a turn was offered them, or its client waits for them."""
        given = self.request.parameters
        if self.request.kept and (not given.get("tools") or given.get("tool_choice") == "none"):
            return ()
        return tuple(self._tool_calls[index] for index in sorted(self._tool_calls))

    def _outcome(self, ending: Ending, error: BrainError | None) -> Outcome:
        attempts = tuple(self._attempt(record) for record in self.trace)
        usage, estimated = charged(attempts)
        return Outcome(
            ending=ending,
            text=self.request.earlier + self.request.prefix + "".join(self._text),
            model=self._model or self.request.model,
            finish_reason=self._finish_reason,
            usage=usage,
            estimated=estimated,
            error=error_body(error, self.request.turn_id) if error else None,
            status=error.status if error else 502,
            attempts=attempts,
            tool_calls=self._called(),
        )


def _fitting(request: GenerationRequest, route: Route) -> GenerationRequest:
    """Tools that a turn may call are offered to the models that can; a client's own tools go where it sent them."""
    if not request.kept or "tools" not in request.parameters or "tools" in route.model.capabilities:
        return request
    left = {name: value for name, value in request.parameters.items() if name not in ("tools", "tool_choice")}
    return replace(request, parameters=left)
