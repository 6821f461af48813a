"""A strict double of OpenAI's chat completions: https://platform.openai.com/docs/api-reference/chat."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)

from tests.doubles.conforms import check
from tests.doubles.script import KEY, Double, Said, event, serving, stream

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 4},
}
HEAD = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "gpt-double"}


class OpenAIDouble(Double):
    """`newer`: as OpenAI's own newer models, which refuse `max_tokens`."""

    def __init__(self, newer: bool = False) -> None:
        super().__init__()
        self.newer = newer

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.chat)
        return app

    async def chat(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return error(401, "invalid_request_error", "Incorrect API key provided", "invalid_api_key")
        try:
            body = await request.json()
            streams = bool(isinstance(body, dict) and body.get("stream"))
            check(body, CompletionCreateParamsStreaming if streams else CompletionCreateParamsNonStreaming)
            self.rules(body)
        except ValueError as wrong:
            return error(400, "invalid_request_error", str(wrong))
        self.receive(request, body)
        said = self.next()
        if said.status != 200:
            return error(said.status, "error", said.error[1], said.error[0], said.headers)
        if not streams or not said.streams:
            return web.json_response(whole(said), headers=said.headers)
        failed = event({"error": {"message": said.error[1], "type": "server_error", "code": said.error[0]}})
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return await stream(
            request, said, [chunk({"role": "assistant"})], content(said), closing(said, with_usage), failed
        )

    def rules(self, body: dict[str, Any]) -> None:
        """What the types do not say. Raises ValueError."""
        must(body["messages"], "messages: [] is too short")
        if self.newer:
            must("max_tokens" not in body, "'max_tokens' is not supported with this model. Use 'max_completion_tokens'")
        must("stream_options" not in body or body.get("stream"), "stream_options is only allowed when streaming")
        answered(body["messages"])
        names = [tool["function"]["name"] for tool in body.get("tools", [])]
        must("tools" not in body or 1 <= len(names) <= 128, "tools: between 1 and 128")
        must(all(NAME.fullmatch(name) for name in names), "tools.function.name does not match the pattern")
        for name in ("tool_choice", "parallel_tool_calls"):
            must(name not in body or names, f"'{name}' is only allowed when 'tools' are specified")
        if isinstance(choice := body.get("tool_choice"), dict):
            must(choice["function"]["name"] in names, "tool_choice: the function is not among the tools")
        form = body.get("response_format") or {"type": "text"}
        if form["type"] == "json_object":
            must("json" in json.dumps(body["messages"]).lower(), "'messages' must contain the word 'json'")
        if form["type"] == "json_schema":
            must(NAME.fullmatch(form["json_schema"]["name"]), "response_format.json_schema.name")
        stops = body.get("stop") or []
        must(isinstance(stops, str) or len(stops) <= 4, "stop: at most 4")


def must(right: Any, what: str) -> None:
    if not right:
        raise ValueError(what)


def answered(messages: list[dict[str, Any]]) -> None:
    """Each call of a tool is answered right after it, and nothing else is."""
    open_calls: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            must(message["tool_call_id"] in open_calls, "a 'tool' message must answer a preceding 'tool_calls'")
            open_calls.discard(message["tool_call_id"])
            continue
        must(not open_calls, "an assistant message with 'tool_calls' must be followed by tool messages")
        calls = message.get("tool_calls") or []
        open_calls = {call["id"] for call in calls}
        must(message.get("content") is not None or calls, "content: null is only allowed with tool_calls")
        for part in message["content"] if isinstance(message.get("content"), list) else []:
            must(part["type"] == "text" or message["role"] == "user", "only a user's message may hold images")
            if part["type"] == "image_url":
                must(re.match(r"https?://|data:image/", part["image_url"]["url"]), "image_url: not a valid URL")
    must(not open_calls, "an assistant message with 'tool_calls' must be followed by tool messages")


def error(
    status: int, kind: str, message: str, code: str | None = None, headers: dict[str, str] | None = None
) -> web.Response:
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return web.json_response(body, status=status, headers=headers)


def finish_of(said: Said) -> str:
    return said.finish or ("tool_calls" if said.calls else "stop")


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    return checked({**HEAD, "object": "chat.completion.chunk", "choices": choices})


def checked(body: dict[str, Any]) -> bytes:
    ChatCompletionChunk.model_validate(body)
    return event(body)


def content(said: Said) -> list[bytes]:
    events = [chunk({"reasoning_content": text}) for text in said.thinking]
    events += [chunk({"content": text}) for text in said.text]
    events += [chunk({"refusal": said.refusal})] if said.refusal else []
    for index, call in enumerate(said.calls):
        function = {"name": call.name, "arguments": ""}
        events.append(
            chunk({"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": function}]})
        )
        events += [chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]}) for part in call.parts]
    return events


def closing(said: Said, with_usage: bool) -> list[bytes]:
    usage = {**HEAD, "object": "chat.completion.chunk", "choices": [], "usage": said.usage or USAGE}
    return [chunk({}, finish_of(said)), *([checked(usage)] if with_usage else []), event("[DONE]")]


def whole(said: Said) -> dict[str, Any]:
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in said.calls
    ]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(said.text) or None,
        "refusal": said.refusal or None,
    }
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_of(said)}
    body = {**HEAD, "object": "chat.completion", "choices": [choice], "usage": said.usage or USAGE}
    ChatCompletion.model_validate(body)
    return body


@asynccontextmanager
async def openai_double(newer: bool = False) -> AsyncIterator[OpenAIDouble]:
    double = OpenAIDouble(newer)
    async with serving(double.app()) as address:
        double.url = f"{address}/v1"
        yield double
