"""OpenAI's chat completions, as many servers speak them: https://platform.openai.com/docs/api-reference/chat."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import orjson

from deployments.providers import Piece, ProviderFailure, resolve_key, shown
from deployments.providers.http import MAX_BODY, HttpPool, read_at_most, words_of
from deployments.providers.sse import EventParser
from domain.generation import GenerationRequest
from domain.message import Usage
from domain.model import Provider, Route
from domain.turn import Parameters

DONE = b"[DONE]"

MOST_TOKENS = 10**12  # what a provider counts beyond this is nonsense, and fits no column


class OpenAIWire:
    """Calls any OpenAI-compatible base URL."""

    def __init__(self) -> None:
        self._pool = HttpPool()

    async def stream(self, route: Route, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        provider = route.provider
        key = resolve_key(provider)
        headers = {"Accept": "text/event-stream, application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        body = orjson.dumps(body_of(route, request))
        async with self._pool.post(provider, "/chat/completions", headers, body, key) as response:
            if response.content_type == "application/json":
                yield whole(await read_at_most(response, MAX_BODY), provider, key)
                return
            async with contextlib.aclosing(pieces(response, provider, key)) as arriving:
                async for piece in arriving:
                    yield piece

    async def close(self) -> None:
        await self._pool.close()


def body_of(route: Route, request: GenerationRequest) -> dict[str, Any]:
    """The request's body: known parameters only, the model's defaults under those of the caller."""
    parameters = route.model.defaults.model_dump(exclude_none=True)
    parameters |= {k: v for k, v in request.parameters.items() if k in Parameters.model_fields and v is not None}
    return {
        "model": route.upstream,
        "messages": request.messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        **parameters,
    }


async def pieces(response: aiohttp.ClientResponse, provider: Provider, key: str | None) -> AsyncGenerator[Piece, None]:
    """The answer's pieces, one a read; what came before a fault is given before the fault is raised."""
    parser, content, finished, done = EventParser(), response.content, False, False
    while not done:
        try:
            chunk = await content.readany()
        except aiohttp.ClientError:
            if finished:  # the whole answer has arrived
                return
            raise
        if not chunk:
            return
        text, alive, finish, usage, fault = "", False, None, None, None
        try:
            for data in parser.feed(chunk):
                if data == DONE:
                    done = True
                    break
                event = orjson.loads(data)
                if event.get("error") is not None:
                    fault = in_stream(event["error"], provider, key)
                    break
                if choices := event.get("choices"):
                    delta = choices[0].get("delta") or {}
                    alive = True if delta.get("reasoning_content") or delta.get("reasoning") else alive
                    text += delta.get("content") or ""
                    finish = choices[0].get("finish_reason") or finish
                if counts := event.get("usage"):
                    usage = usage_of(counts)
        except (ValueError, TypeError, AttributeError, LookupError):
            fault = ProviderFailure(f"provider {provider.name!r} sent a malformed event")
        if finish == "error" and fault is None:
            finish, fault = None, ProviderFailure(f"provider {provider.name!r} failed in mid-stream", True)
        if text or alive or finish or usage:
            finished = finished or finish is not None
            yield Piece(text, finish, usage)
        if fault is not None:
            raise fault
    await ended(content)


async def ended(content: aiohttp.StreamReader) -> None:
    """Wait a moment for the end of the body, so that the connection can be used again."""
    try:
        async with asyncio.timeout(0.05):
            await content.wait_eof()
    except (TimeoutError, aiohttp.ClientError):
        pass


def whole(body: bytes, provider: Provider, key: str | None) -> Piece:
    """The answer of a server that does not stream."""
    try:
        answer = orjson.loads(body)
        if answer.get("error") is not None:
            raise in_stream(answer["error"], provider, key)
        choice = answer["choices"][0]
        counts = answer.get("usage")
        return Piece(choice["message"]["content"] or "", choice["finish_reason"], usage_of(counts) if counts else None)
    except (ValueError, TypeError, AttributeError, LookupError):
        raise ProviderFailure(f"provider {provider.name!r} sent a malformed answer") from None


def usage_of(counts: dict[str, Any]) -> Usage:
    def count(value: Any) -> int:
        return min(max(int(value or 0), 0), MOST_TOKENS)

    prompt, completion = count(counts.get("prompt_tokens")), count(counts.get("completion_tokens"))
    return Usage(
        prompt_tokens=prompt,
        cached_tokens=count((counts.get("prompt_tokens_details") or {}).get("cached_tokens")),
        completion_tokens=completion,
        total_tokens=count(counts.get("total_tokens") or prompt + completion),
    )


def in_stream(error: Any, provider: Provider, key: str | None) -> ProviderFailure:
    """An error that came with status 200."""
    return ProviderFailure(f"provider {provider.name!r} failed: {shown(words_of(error), key)}", True)
