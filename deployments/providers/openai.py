"""OpenAI's chat completions, as many servers speak them: https://platform.openai.com/docs/api-reference/chat."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import orjson

from deployments.providers import Piece, ProviderFailure, resolve_key
from deployments.providers.http import MAX_BODY, OPENAI_HOST, HttpPool, headers_of, host_of, read_at_most, told
from deployments.providers.reading import Gathered, count, pieces
from deployments.providers.responses import ResponsesWire
from domain.generation import GenerationRequest
from domain.message import Usage
from domain.model import Provider, Route
from domain.turn import Parameters

DONE = b"[DONE]"
MARKS_PREFIX = frozenset({"api.deepseek.com", "api.mistral.ai"})  # want `prefix: true` on the message to go on from
CONTINUES = "continue_final_message"  # capability of a model behind vLLM or SGLang, which want to be told
FINISHES = frozenset({"stop", "length", "tool_calls", "content_filter"})
BESIDE = ("tools", "tool_choice", "parallel_tool_calls", "response_format")


class OpenAIWire:
    """Calls any OpenAI-compatible base URL, each model by the one of the two APIs that it names."""

    def __init__(self, pool: HttpPool | None = None) -> None:
        self._pool = pool or HttpPool()
        self._responses = ResponsesWire(self._pool)

    def stream(self, route: Route, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        if route.model.api == "responses":
            return self._responses.stream(route, request)
        return self._chat(route, request)

    def resume(
        self, route: Route, request: GenerationRequest, ref: str, cursor: int | None
    ) -> AsyncGenerator[Piece, None]:
        return self._responses.resume(route, request, ref, cursor)

    async def abandon(self, route: Route, ref: str) -> None:
        await self._responses.abandon(route, ref)

    async def close(self) -> None:
        await self._pool.close()

    async def _chat(self, route: Route, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        provider = route.provider
        key = resolve_key(provider)
        body = orjson.dumps(continued(body_of(route, request), route, request.prefix))
        headers = headers_of(request, key)
        async with self._pool.call(provider, "POST", "/chat/completions", headers, body, key) as response:
            if response.content_type == "application/json":
                yield whole(await read_at_most(response, MAX_BODY), provider, key)
                return
            async with contextlib.aclosing(pieces(response, ChatReader(provider, key), provider)) as arriving:
                async for piece in arriving:
                    yield piece


def body_of(route: Route, request: GenerationRequest) -> dict[str, Any]:
    """The request's body: known parameters only, the model's defaults under those of the caller."""
    parameters = route.model.defaults.model_dump(exclude_none=True)
    parameters |= {k: v for k, v in request.parameters.items() if k in Parameters.model_fields and v is not None}
    body = {
        "model": route.upstream,
        "messages": request.messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        **parameters,
        **beside(request.parameters),
    }
    if host_of(route.provider) == OPENAI_HOST:
        if "max_tokens" in body:  # OpenAI's own newer models refuse it, most other servers know no other
            body["max_completion_tokens"] = body.pop("max_tokens")
        if request.session:
            body["prompt_cache_key"] = request.session
    return body


def beside(parameters: dict[str, Any]) -> dict[str, Any]:
    """Tools and the format of the answer, as far as they say anything."""
    given = {name: parameters[name] for name in BESIDE if parameters.get(name) is not None}
    if not given.get("tools"):
        given = {name: value for name, value in given.items() if name == "response_format"}
    return given


def continued(body: dict[str, Any], route: Route, prefix: str) -> dict[str, Any]:
    """`body`, ending with what was said already, for a model that is configured with `continues`.

    OpenAI's reference has no field for it. Servers that go on from a last assistant message do so unasked (OpenRouter,
    Ollama, llama.cpp), or by a field of their own.
    """
    if not prefix:
        return body
    said: dict[str, Any] = {"role": "assistant", "content": prefix}
    if host_of(route.provider) in MARKS_PREFIX:
        said["prefix"] = True
    body = {**body, "messages": [*body["messages"], said]}
    if CONTINUES in route.model.capabilities:
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return body


class ChatReader(Gathered):
    """Reads `chat.completion.chunk` events."""

    def __init__(self, provider: Provider, key: str | None) -> None:
        super().__init__()
        self._provider, self._key = provider, key
        self._places: dict[int, int] = {}  # index over there -> index here: servers begin at any number

    def take(self, data: bytes) -> bool:
        if data == DONE:
            return True
        event = orjson.loads(data)
        if (error := event.get("error")) is not None:
            raise in_stream(error, self._provider, self._key)
        if choices := event.get("choices"):
            choice = choices[0]
            if delta := choice.get("delta"):
                self._add(delta)
            if finish := choice.get("finish_reason"):
                if finish == "error":
                    raise ProviderFailure(f"provider {self._provider.name!r} failed in mid-stream", True)
                self.finish = known(finish)
        if counts := event.get("usage"):
            self.usage = usage_of(counts)
        return False

    def piece(self) -> Piece | None:
        return self.give()

    def _add(self, delta: dict[str, Any]) -> None:
        if text := delta.get("content"):
            self.text += text
        elif refusal := delta.get("refusal"):
            self.text += refusal
        if calls := delta.get("tool_calls"):
            for place, call in enumerate(calls):
                delta = call_delta(call, place)
                delta["index"] = self._places.setdefault(delta["index"], len(self._places))
                self.calls.append(delta)
        elif delta.get("reasoning_content") or delta.get("reasoning"):
            self.alive = True


def call_delta(call: dict[str, Any], place: int) -> dict[str, Any]:
    """One delta of a tool call with the known fields alone; some servers number none."""
    function = call.get("function") or {}
    index = call.get("index")
    delta: dict[str, Any] = {"index": place if index is None else int(index)}
    if call.get("id"):
        delta |= {"id": str(call["id"]), "type": "function"}
    told_of = {name: str(function[name]) for name in ("name", "arguments") if function.get(name) is not None}
    return {**delta, "function": told_of}


def known(finish: str | None) -> str | None:
    return finish if finish in FINISHES or not finish else "stop"


def whole(body: bytes, provider: Provider, key: str | None) -> Piece:
    """The answer of a server that does not stream."""
    try:
        answer = orjson.loads(body)
        if answer.get("error") is not None:
            raise in_stream(answer["error"], provider, key)
        choice = answer["choices"][0]
        message, counts = choice["message"], answer.get("usage")
        calls = tuple(
            {**call_delta(call, place), "index": place} for place, call in enumerate(message.get("tool_calls") or ())
        )
        text = message.get("content") or message.get("refusal") or ""
        return Piece(text, known(choice["finish_reason"]), usage_of(counts) if counts else None, calls)
    except (ValueError, TypeError, AttributeError, LookupError):
        raise ProviderFailure(f"provider {provider.name!r} sent a malformed answer") from None


def usage_of(counts: dict[str, Any]) -> Usage:
    prompt, completion = count(counts.get("prompt_tokens")), count(counts.get("completion_tokens"))
    return Usage(
        prompt_tokens=prompt,
        cached_tokens=count((counts.get("prompt_tokens_details") or {}).get("cached_tokens")),
        completion_tokens=completion,
        total_tokens=count(counts.get("total_tokens") or prompt + completion),
    )


def in_stream(error: Any, provider: Provider, key: str | None) -> ProviderFailure:
    """An error that came with status 200; it may pass unless it says otherwise."""
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else STATUSES.get(str(code), 500)
    return told(provider, key, error, status)


STATUSES = {"rate_limit_exceeded": 429, "insufficient_quota": 429, "invalid_prompt": 400}
