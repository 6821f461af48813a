"""Anthropic's Messages API: https://docs.anthropic.com/en/api/messages."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import orjson

from deployments.providers import Piece, ProviderFailure, resolve_key
from deployments.providers.anthropic_body import JSON_TOOL, SAMPLING, body_of
from deployments.providers.http import MAX_BODY, HttpPool, headers_of, read_at_most, told
from deployments.providers.reading import Gathered, count, pieces
from domain.generation import GenerationRequest
from domain.message import Usage
from domain.model import Provider, Route

VERSION = "2026-10-21"  # https://platform.claude.com/docs/en/api/versioning
SAMPLING_VERSION = "2023-06-01"  # the last one with `temperature` and `top_p`
FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class AnthropicWire:
    """Calls `/v1/messages`. A provider's `base_url` may end in `/v1` or not, as with Anthropic's own clients."""

    def __init__(self, pool: HttpPool | None = None) -> None:
        self._pool = pool or HttpPool()

    async def stream(self, route: Route, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        provider = route.provider
        key = resolve_key(provider)
        version = SAMPLING_VERSION if SAMPLING in route.model.capabilities else VERSION
        headers = {**headers_of(request, None), "anthropic-version": version}
        if key is not None:
            headers["x-api-key"] = key
        content = body_of(route, request)
        reader = MessageReader(provider, key, content, request.prefix)
        path = "/messages" if (provider.base_url or "").rstrip("/").endswith("/v1") else "/v1/messages"
        async with self._pool.call(provider, "POST", path, headers, orjson.dumps(content), key) as response:
            if response.content_type == "application/json":
                piece = reader.whole(await read_at_most(response, MAX_BODY))
                if piece is not None:
                    yield piece
                return
            async with contextlib.aclosing(pieces(response, reader, provider)) as arriving:
                async for piece in arriving:
                    yield piece

    async def close(self) -> None:
        await self._pool.close()


class MessageReader(Gathered):
    """Reads the events of one message. What the model thinks is no part of its answer: it is a sign of life.

    `body` is what was asked: where JSON was asked for by a tool, that tool's input is the text. `prefix` is what the
    answer goes on from; white space at its end could not be sent, and is left out of the answer where it is repeated.
    """

    def __init__(self, provider: Provider, key: str | None, body: dict[str, Any], prefix: str = "") -> None:
        super().__init__()
        self._provider, self._key = provider, key
        self._json = any(tool["name"] == JSON_TOOL for tool in body.get("tools", ()))
        self._space = prefix[len(prefix.rstrip()) :]
        self._counts: dict[str, Any] = {}
        self._calls: dict[int, int] = {}  # place of a block -> index among the calls
        self._inputs: dict[int, str] = {}  # of a tool block that has not told its input yet
        self._began = False

    def take(self, data: bytes) -> bool:
        event = orjson.loads(data)
        match event["type"]:
            case "message_start":
                self._count(event["message"].get("usage"))
            case "content_block_start":
                self._begin(event["index"], event["content_block"])
            case "content_block_delta":
                self._add(event["index"], event["delta"])
            case "content_block_stop":
                self._input(event["index"], self._inputs.pop(event["index"], ""))
            case "message_delta":
                self._count(event.get("usage"))
                self._end(event["delta"].get("stop_reason"))
            case "message_stop":
                return True
            case "ping":
                self.alive = self.alive or self._began
            case "error":
                raise failure(event["error"], self._provider, self._key)
        return False

    def piece(self) -> Piece | None:
        return self.give()

    def whole(self, body: bytes) -> Piece | None:
        """The answer of a server that does not stream."""
        try:
            message = orjson.loads(body)
            if message.get("error") is not None:
                raise failure(message["error"], self._provider, self._key)
            for index, block in enumerate(message["content"]):
                self._begin(index, block)
                self._input(index, self._inputs.pop(index, ""))
            self._count(message.get("usage"))
            self._end(message["stop_reason"])
        except (ValueError, TypeError, AttributeError, LookupError):
            raise ProviderFailure(f"provider {self._provider.name!r} sent a malformed answer") from None
        return self.piece()

    def _begin(self, index: int, block: dict[str, Any]) -> None:
        self._began = True
        if block["type"] == "tool_use":
            given = block.get("input")
            self._inputs[index] = orjson.dumps(given).decode() if given else "{}"
            if not self._json:
                place = self._calls[index] = len(self._calls)
                function = {"name": block["name"], "arguments": ""}
                call = {"index": place, "id": block["id"], "type": "function", "function": function}
                self.calls.append(call)
        elif block["type"] == "text":
            self._say(block.get("text") or "")
        else:
            self.alive = True

    def _add(self, index: int, delta: dict[str, Any]) -> None:
        if delta["type"] == "text_delta":
            self._say(delta["text"])
        elif delta["type"] == "input_json_delta":
            if delta["partial_json"]:
                self._inputs.pop(index, None)
                self._input(index, delta["partial_json"])
        else:
            self.alive = True

    def _input(self, index: int, json: str) -> None:
        if json and self._json:
            self.text += json
        elif json:
            self.calls.append({"index": self._calls[index], "function": {"arguments": json}})

    def _say(self, text: str) -> None:
        while self._space and text.startswith(self._space[0]):
            self._space, text = self._space[1:], text[1:]
        if text:
            self._space = ""
            if not self._json:  # a remark beside the JSON that was asked for
                self.text += text

    def _count(self, counts: dict[str, Any] | None) -> None:
        self._counts |= {name: value for name, value in (counts or {}).items() if value is not None}

    def _end(self, reason: str | None) -> None:
        if reason is None:
            return
        finish = FINISHES.get(reason, "stop")
        self.finish = "stop" if self._json and finish == "tool_calls" else finish
        self.usage = usage_of(self._counts) if self._counts else None


def usage_of(counts: dict[str, Any]) -> Usage:
    """All prompt tokens, whether they were read from the cache, written into it, or neither."""
    cached, completion = count(counts.get("cache_read_input_tokens")), count(counts.get("output_tokens"))
    prompt = count(counts.get("input_tokens")) + cached + count(counts.get("cache_creation_input_tokens"))
    return Usage(
        prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion, total_tokens=prompt + completion
    )


def failure(error: dict[str, Any], provider: Provider, key: str | None) -> ProviderFailure:
    """The failure that an `error` event tells of; its type has the meaning of an HTTP status."""
    return told(provider, key, error, STATUSES.get(error.get("type", ""), 500))
