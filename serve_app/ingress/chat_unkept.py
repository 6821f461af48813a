"""A completion of which nothing is kept. The client's leaving cancels it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from deployments.recording import TOOL_CALLS
from domain.errors import BrainError, GenerationError, JournalUnavailable, Overloaded, Unavailable
from domain.events import DELTA, Event, Position
from domain.generation import GenerationRequest, Outcome
from domain.ids import new_id
from domain.tenant import Caller
from serve_app.ingress import metrics, sse
from serve_app.ingress.answers import Answer
from serve_app.ingress.chat_choice import choose
from serve_app.ingress.completions import Completion
from serve_app.ingress.context import visit_of
from serve_app.ingress.detached import apart, detach
from serve_app.ingress.limiter import Entry
from serve_app.ingress.limiting import hand_on, used
from serve_app.ingress.openai_bodies import ChatCompletion
from serve_app.ingress.parts import Parts, parts_of
from serve_app.ingress.shapes import error_json

Generate = Callable[[], "asyncio.Future[Outcome]"]
LINGER = 0.25  # seconds that the journal may lag behind the generation's own answer


async def complete(request: Request, caller: Caller, body: ChatCompletion) -> Response:
    parts = parts_of(request)
    messages, parameters = body.shaped_messages(), {**body.parameters(), **body.tool_parameters()}
    chosen = await choose(parts, caller, body, messages)
    asked = GenerationRequest(
        tenant=caller.tenant,
        turn_id=new_id("turn"),
        attempt=1,
        model=chosen.selection.route.id,
        messages=messages,
        parameters=parameters,
        intent=chosen.intent,
        chain=tuple(route.id for route in chosen.selection.fallback),
        live=bool(body.stream),
        journal=bool(body.stream),
        kept=False,
        stable=len(messages) if any(message["role"] == "assistant" for message in messages) else 0,
        weight=chosen.weight,
        traceparent=visit_of(request.scope).traceparent,
    )
    asked = await parts.accounts.hold(parts.models, asked, (chosen.selection.route, *chosen.selection.fallback))
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    completion = Completion(asked.turn_id, asked.model, with_usage=with_usage)

    def generate() -> "asyncio.Future[Outcome]":
        generation = apart(parts.llm.generate(asked))
        settling = (parts.catalog, asked, caller.key_id, chosen.prompt_tokens, lambda: completion.sent)
        parts.accounts.settle_after(generation, *settling)
        hand_on(request, generation)
        return generation

    if body.stream:
        entry = visit_of(request.scope).entry
        stream = _Unkept(parts, asked, completion, generate, entry)
        return sse.EventStream(stream.pieces(), {"x-brain-model": asked.model})
    try:
        outcome: Outcome = await sse.while_present(request.receive, asyncio.shield(generate()))
    except (ClientDisconnect, asyncio.CancelledError):
        detach(parts.llm.cancel(asked))
        raise
    await _settled(visit_of(request.scope).entry, outcome)
    completion.named(outcome.model)
    headers = {"x-brain-model": outcome.model or asked.model}
    if outcome.ending == "failed":
        return Answer({"error": error_json(_error(outcome))}, outcome.status, headers)
    if outcome.ending == "elsewhere":
        raise Unavailable("the generation went on in another process")
    whole = completion.whole(outcome.text, _finish(outcome), outcome.usage, outcome.tool_calls)
    return Answer(whole, 200, headers)


class _Unkept:
    """A streamed completion: deltas from the journal as they come, the end from the generation itself."""

    def __init__(
        self, parts: Parts, asked: GenerationRequest, completion: Completion, generate: Generate, entry: Entry | None
    ) -> None:
        self._parts, self._asked, self._completion, self._generate = parts, asked, completion, generate
        self._entry = entry
        self._n = 0
        self._followed = True
        self._dropped = False

    async def pieces(self) -> AsyncIterator[tuple[bytes, bool]]:
        generation = self._generate()
        try:
            yield self._completion.opening(), False
            async for batch in self._deltas(generation):
                yield b"".join(map(self._line, batch)) or sse.KEEP_ALIVE, bool(batch)
            if not self._dropped:
                outcome = await generation
                await _settled(self._entry, outcome)
                yield self._end(outcome), True
        except BrainError as error:
            yield self._completion.failure({"message": str(error), "type": error.type, "code": error.code}), False
        finally:
            if not generation.done():  # it is not given up: how it ends says what it cost
                detach(self._parts.llm.cancel(self._asked))

    async def _deltas(self, generation: "asyncio.Future[Outcome]") -> AsyncIterator[list[Event]]:
        """Batches of deltas until the generation has ended; an empty one after a long silence."""
        loop, silence = asyncio.get_running_loop(), self._parts.settings.keep_alive
        while not generation.done():
            try:
                async with aclosing(self._source()) as source:
                    while self._followed:
                        batch = await _next(source, loop.time() + silence, generation)
                        fresh = self._fresh(batch)
                        if fresh:
                            yield fresh
                        if generation.done() and self._completion.sent >= len(_text(generation)):
                            return
            except TimeoutError:
                if not generation.done():
                    yield []
                continue
            except Overloaded:
                metrics.SLOW_READERS.inc()
                self._dropped = True
                return
            except (JournalUnavailable, StopAsyncIteration):
                pass
            await asyncio.wait((generation,), timeout=silence)
            if not generation.done():
                yield []

    def _source(self) -> Any:
        return self._parts.follower.follow(self._asked.tenant, self._asked.turn_id, Position(1, self._n), kept=False)

    def _fresh(self, batch: list[Event]) -> list[Event]:
        fresh = []
        for event in batch:
            if event.n <= self._n:
                continue
            if event.n != self._n + 1:
                self._followed = False
                break
            self._n = event.n
            if event.type in (DELTA, TOOL_CALLS):
                fresh.append(event)
        return fresh

    def _line(self, event: Event) -> bytes:
        if event.type == DELTA:
            return self._completion.delta(event.data["text"])
        return self._completion.call_deltas(event.data["tool_calls"])

    def _end(self, outcome: Outcome) -> bytes:
        self._completion.named(outcome.model)
        if outcome.ending in ("completed", "cancelled"):
            return self._completion.closing(outcome.text, _finish(outcome), outcome.usage, outcome.tool_calls)
        return self._completion.failure(_error(outcome))


async def _next(source: Any, deadline: float, generation: "asyncio.Future[Outcome]") -> list[Event]:
    """The next batch. Raises `TimeoutError` at the deadline, or `LINGER` seconds after the generation has ended."""
    loop, inside = asyncio.get_running_loop(), True
    if generation.done():
        deadline = loop.time() + LINGER
    async with asyncio.timeout_at(deadline) as limit:

        def hurry(_: object) -> None:
            if inside and not limit.expired():
                limit.reschedule(loop.time() + LINGER)

        generation.add_done_callback(hurry)
        try:
            batch: list[Event] = await anext(source)
            return batch
        finally:
            inside = False
            generation.remove_done_callback(hurry)


async def _settled(entry: Entry | None, outcome: Outcome) -> None:
    """Before the end is told: whoever hears it may ask again at once."""
    if entry is not None:
        await entry.ended(used(outcome.usage))


def _text(generation: "asyncio.Future[Outcome]") -> str:
    return "" if generation.cancelled() or generation.exception() else generation.result().text


def _finish(outcome: Outcome) -> str:
    return outcome.finish_reason or ("tool_calls" if outcome.tool_calls else "stop")


def _error(outcome: Outcome) -> dict[str, Any]:
    usual = {"message": str(GenerationError()), "type": GenerationError.type, "code": GenerationError.code}
    return outcome.error or usual
