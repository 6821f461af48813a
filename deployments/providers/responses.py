"""OpenAI's Responses API: https://platform.openai.com/docs/api-reference/responses.

Nothing is stored there, unless the model is configured with `reattach`: then the answer runs in the background, and a
lost stream is taken up again after the last event that arrived.
"""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote

import orjson

from deployments.providers import Piece, ProviderFailure, resolve_key
from deployments.providers.http import MAX_BODY, MAX_ERROR, HttpPool, headers_of, read_at_most, told
from deployments.providers.reading import Gathered, count, pieces
from deployments.providers.responses_body import body_of
from domain.generation import GenerationRequest
from domain.message import Usage
from domain.model import Provider, Route

STATUSES = {"rate_limit_exceeded": 429, "insufficient_quota": 429, "vector_store_timeout": 504}
REFUSALS = (
    "invalid_",
    "image_",
    "empty_",
    "unsupported_",
    "failed_to_download_",
    "data_residency_",
    "bio_",
    "misalignment_",
)
INCOMPLETE = {"max_output_tokens": "length", "content_filter": "content_filter"}


class ResponsesWire:
    """Calls `/responses` of a base URL that speaks OpenAI's Responses API."""

    def __init__(self, pool: HttpPool | None = None) -> None:
        self._pool = pool or HttpPool()

    async def stream(self, route: Route, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        provider = route.provider
        key = resolve_key(provider)
        body = orjson.dumps(body_of(route, request))
        reader = ResponsesReader(provider, key, route.model.reattach)
        async with self._pool.call(provider, "POST", "/responses", headers_of(request, key), body, key) as response:
            if response.content_type == "application/json":
                yield whole(await read_at_most(response, MAX_BODY), provider, key)
                return
            async with contextlib.aclosing(pieces(response, reader, provider)) as arriving:
                async for piece in arriving:
                    yield piece

    async def resume(
        self, route: Route, request: GenerationRequest, ref: str, cursor: int | None
    ) -> AsyncGenerator[Piece, None]:
        """Go on after event number `cursor`. With tools it is read from its start, for a call's later deltas do not
        say which of the calls they belong to, and what is known already is left out."""
        provider = route.provider
        key = resolve_key(provider)
        after = "" if cursor is None or request.parameters.get("tools") else f"&starting_after={cursor}"
        path = f"/responses/{quote(ref, safe='')}?stream=true{after}"
        reader = ResponsesReader(provider, key, True, -1 if cursor is None else cursor, ref)
        async with (
            self._pool.call(provider, "GET", path, headers_of(request, key), None, key) as response,
            contextlib.aclosing(pieces(response, reader, provider)) as arriving,
        ):
            async for piece in arriving:
                yield piece

    async def abandon(self, route: Route, ref: str) -> None:
        provider = route.provider
        key = resolve_key(provider)
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        path = f"/responses/{quote(ref, safe='')}/cancel"
        async with self._pool.call(provider, "POST", path, headers, None, key) as response:
            await read_at_most(response, MAX_ERROR)

    async def close(self) -> None:
        await self._pool.close()


class ResponsesReader(Gathered):
    """Reads the events of a response. `reattach`: tell its id and how far it got. Events up to `known` are not told."""

    def __init__(
        self, provider: Provider, key: str | None, reattach: bool = False, known: int = -1, ref: str | None = None
    ) -> None:
        super().__init__()
        self._provider, self._key, self._reattach, self._known, self._ref = provider, key, reattach, known, ref
        self._calls: dict[int, int] = {}  # place in the output -> index among the calls
        self._cursor = known
        self._told = ref is not None

    def take(self, data: bytes) -> bool:
        event = orjson.loads(data)
        kind = event["type"]
        self._cursor = max(self._cursor, event.get("sequence_number", -1))
        if kind == "response.created":
            self._ref = event["response"]["id"]
        elif kind == "response.output_item.added":
            self._add(event)
        elif kind in ("response.output_text.delta", "response.refusal.delta"):
            self.text += event["delta"]
        elif kind == "response.function_call_arguments.delta":
            call = {"index": self._calls[event["output_index"]], "function": {"arguments": event["delta"]}}
            self.calls.append(call)
        elif kind.startswith("response.reasoning"):
            self.alive = True
        elif kind in ("response.completed", "response.incomplete"):
            self._end(event["response"])
        elif kind in ("response.failed", "response.cancelled", "error"):
            fault = failure(event.get("response") or event, self._provider, self._key)
            fault.ended = kind != "error"
            raise fault
        if event.get("sequence_number", self._known + 1) <= self._known:
            self.give()
        return self.finish is not None

    def piece(self) -> Piece | None:
        if not self._reattach:
            return self.give()
        piece = self.give(told=self._ref is not None and not self._told)
        if piece is None:
            return None
        self._told = True
        return piece._replace(ref=self._ref, cursor=self._cursor if self._cursor >= 0 else None)

    def _add(self, event: dict[str, Any]) -> None:
        item = event["item"]
        if item["type"] == "function_call":
            index = self._calls.setdefault(event["output_index"], len(self._calls))
            function = {"name": item["name"], "arguments": item.get("arguments") or ""}
            self.calls.append({"index": index, "id": item["call_id"], "type": "function", "function": function})
        else:
            self.alive = True

    def _end(self, response: dict[str, Any]) -> None:
        self.finish = finish_of(response, bool(self._calls))
        if counts := response.get("usage"):
            self.usage = usage_of(counts)


def finish_of(response: dict[str, Any], called: bool) -> str:
    if response.get("status") == "incomplete":
        return INCOMPLETE.get((response.get("incomplete_details") or {}).get("reason", ""), "length")
    return "tool_calls" if called else "stop"


def failure(told_of: dict[str, Any], provider: Provider, key: str | None) -> ProviderFailure:
    """The failure that a failed or cancelled response or an `error` event tells of."""
    error = told_of.get("error") or told_of
    if told_of.get("status") == "cancelled":
        return told(provider, key, "the answer was cancelled there", 499, retryable=False)
    code = str(error.get("code"))
    return told(provider, key, error, STATUSES.get(code, 400 if code.startswith(REFUSALS) else 500))


def whole(body: bytes, provider: Provider, key: str | None) -> Piece:
    """The answer of a server that does not stream."""
    try:
        response = orjson.loads(body)
        if response.get("error") is not None or response.get("status") in ("failed", "cancelled"):
            raise failure(response, provider, key)
        text, calls = "", list[dict[str, Any]]()
        for item in response["output"]:
            if item["type"] == "message":
                text += "".join(part.get("text") or part.get("refusal") or "" for part in item["content"])
            elif item["type"] == "function_call":
                function = {"name": item["name"], "arguments": item["arguments"]}
                calls.append({"index": len(calls), "id": item["call_id"], "type": "function", "function": function})
        counts = response.get("usage")
        return Piece(text, finish_of(response, bool(calls)), usage_of(counts) if counts else None, tuple(calls))
    except (ValueError, TypeError, AttributeError, LookupError):
        raise ProviderFailure(f"provider {provider.name!r} sent a malformed answer") from None


def usage_of(counts: dict[str, Any]) -> Usage:
    prompt, completion = count(counts.get("input_tokens")), count(counts.get("output_tokens"))
    return Usage(
        prompt_tokens=prompt,
        cached_tokens=count((counts.get("input_tokens_details") or {}).get("cached_tokens")),
        completion_tokens=completion,
        total_tokens=count(counts.get("total_tokens") or prompt + completion),
    )
