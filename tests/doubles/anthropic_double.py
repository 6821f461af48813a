"""A strict double of Anthropic's Messages API: https://docs.anthropic.com/en/api/messages."""

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from pydantic import TypeAdapter

from tests.doubles.conforms import check
from tests.doubles.openai_double import must
from tests.doubles.script import KEY, Double, Said, event, serving, stream

VERSION, OLD_VERSION = "2026-10-21", "2023-06-01"
NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
KINDS = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
USAGE = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 20,
    "cache_read_input_tokens": 300,
    "output_tokens": 7,
}


class AnthropicDouble(Double):
    """`prefill`: as older models, which go on from a last message of the assistant."""

    def __init__(self) -> None:
        super().__init__()
        self.prefill = True

    def app(self) -> web.Application:
        app = web.Application(client_max_size=32 << 20)
        app.router.add_post("/v1/messages", self.messages)
        return app

    async def messages(self, request: web.Request) -> web.StreamResponse:
        given = (request.headers.get("x-api-key"), request.headers.get("Authorization"))
        if given not in ((KEY, None), (None, f"Bearer {KEY}")):  # as documented; as the official client has it
            return error(401, "invalid x-api-key")
        version = request.headers.get("anthropic-version")
        if version not in (VERSION, OLD_VERSION):
            return error(400, "anthropic-version: header is required")
        try:
            body = await request.json()
            streams = bool(isinstance(body, dict) and body.get("stream"))
            known = {k: v for k, v in body.items() if version == VERSION or k not in ("temperature", "top_p")}
            check(known, MessageCreateParamsStreaming if streams else MessageCreateParamsNonStreaming)
            self.rules(body)
        except ValueError as wrong:
            return error(400, str(wrong))
        self.receive(request, body)
        said = self.next()
        if said.status != 200:
            return error(said.status, said.error[1], said.headers)
        if not streams or not said.streams:
            return web.json_response(whole(said), headers=said.headers)
        failed = {"type": "error", "error": {"type": said.error[0], "message": said.error[1]}}
        return await stream(request, said, opening(said), content(said), closing(said), event(failed, "error"))

    def rules(self, body: dict[str, Any]) -> None:
        """What the types do not say. Raises ValueError."""
        must(body["max_tokens"] >= 1, "max_tokens: must be greater than or equal to 1")
        must(body["messages"], "messages: at least one message is required")
        must(0 <= body.get("temperature", 0) <= 1, "temperature: range: 0..1")
        must(all(mark.strip() for mark in body.get("stop_sequences", [])), "stop_sequences: only white space")
        for block in blocks_in(body):
            must(block.get("type") != "text" or block["text"], "messages: text content blocks must be non-empty")
            source = block.get("source") or {}
            must(source.get("type") != "base64" or base64.b64decode(source["data"], validate=True), "image: no base64")
        marks = [block for block in [*blocks_in(body), *body.get("tools", [])] if block.get("cache_control")]
        must(len(marks) <= 4, f"A maximum of 4 blocks with cache_control may be provided. Found {len(marks)}")
        turns(body["messages"])
        self.last(body["messages"][-1])
        names = [tool["name"] for tool in body.get("tools", [])]
        must(len(set(names)) == len(names), "tools: Tool names must be unique")
        must(all(NAME.fullmatch(name) for name in names), "tools.name: does not match the pattern")
        must(all(tool["input_schema"].get("type") == "object" for tool in body.get("tools", [])), "input_schema.type")
        choice = body.get("tool_choice") or {"type": "auto"}
        must(names or "tool_choice" not in body, "tool_choice may only be specified while providing tools")
        must(choice["type"] != "tool" or choice["name"] in names, "tool_choice: not among the tools")

    def last(self, message: dict[str, Any]) -> None:
        if message["role"] != "assistant":
            return
        must(self.prefill, "Prefilling assistant messages is not supported for this model.")
        text = message["content"] if isinstance(message["content"], str) else message["content"][-1].get("text", "")
        must(text == text.rstrip(), "messages: final assistant content cannot end with trailing whitespace")


def blocks_in(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All blocks of content, also those inside tool results."""
    for content in (body.get("system", ""), *(message["content"] for message in body["messages"])):
        for block in content if isinstance(content, list) else [{"type": "text", "text": content or "x"}]:
            yield block
            yield from block["content"] if isinstance(block.get("content"), list) else []


def turns(messages: list[dict[str, Any]]) -> None:
    """Roles, and that each `tool_use` has its `tool_result` at the beginning of the next message, and no other has."""
    open_calls: set[str] = set()
    for message in messages:
        must(message["role"] in ("user", "assistant"), f'messages: Unexpected role "{message["role"]}"')
        blocks = message["content"] if isinstance(message["content"], list) else []
        results = [place for place, block in enumerate(blocks) if block["type"] == "tool_result"]
        must(results == list(range(len(results))), "tool_result blocks must come first")
        found = {blocks[place]["tool_use_id"] for place in results}
        must(found == open_calls, f"tool_use ids and tool_result ids differ: {sorted(open_calls ^ found)}")
        uses = [block["id"] for block in blocks if block["type"] == "tool_use"]
        must(not uses or message["role"] == "assistant", "tool_use blocks are the assistant's")
        must(len(set(uses)) == len(uses), "tool_use ids must be unique")
        open_calls = set(uses)
    must(not open_calls, "tool_use ids were found without tool_result blocks")


def error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    kind = KINDS.get(status, "api_error")
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    return web.json_response(body, status=status, headers=headers)


def checked(data: dict[str, Any]) -> bytes:
    EVENT.validate_python(data)
    return event(data, data["type"])


def message_of(said: Said, blocks: list[dict[str, Any]], finish: str | None, usage: dict[str, Any]) -> dict[str, Any]:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-double"}
    return {**head, "content": blocks, "stop_reason": finish, "stop_sequence": None, "usage": usage}


def finish_of(said: Said) -> str:
    return said.finish or ("tool_use" if said.calls else "end_turn")


def opening(said: Said) -> list[bytes]:
    usage = {**USAGE, **said.usage, "output_tokens": 1}
    start = {"type": "message_start", "message": message_of(said, [], None, usage)}
    return [checked(start), event({"type": "ping"}, "ping")]


def content(said: Said) -> list[bytes]:
    """Blocks one after the other: thinking with its signature, text, each call."""
    events: list[bytes] = []
    index = 0

    def block(start: dict[str, Any], deltas: list[dict[str, Any]]) -> None:
        nonlocal index
        events.append(checked({"type": "content_block_start", "index": index, "content_block": start}))
        events.extend(checked({"type": "content_block_delta", "index": index, "delta": delta}) for delta in deltas)
        events.append(checked({"type": "content_block_stop", "index": index}))
        index += 1

    if said.thinking:
        thoughts = [{"type": "thinking_delta", "thinking": text} for text in said.thinking]
        signature = {"type": "signature_delta", "signature": "c2lnbmVk"}
        block({"type": "thinking", "thinking": "", "signature": ""}, [*thoughts, signature])
        block({"type": "redacted_thinking", "data": "c2VjcmV0"}, [])
    if said.text:
        block({"type": "text", "text": ""}, [{"type": "text_delta", "text": text} for text in said.text])
    for call in said.calls:
        parts = [{"type": "input_json_delta", "partial_json": part} for part in ("", *call.parts)]
        block({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}, parts)
    return events


def closing(said: Said) -> list[bytes]:
    usage = {"output_tokens": {**USAGE, **said.usage}["output_tokens"]}
    end = {"stop_reason": finish_of(said), "stop_sequence": None}
    return [checked({"type": "message_delta", "delta": end, "usage": usage}), checked({"type": "message_stop"})]


def whole(said: Said) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = [{"type": "text", "text": "".join(said.text)}] if said.text else []
    for call in said.calls:
        blocks.append(
            {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments or "{}")}
        )
    body = message_of(said, blocks, finish_of(said), {**USAGE, **said.usage})
    Message.model_validate(body)
    return body


@asynccontextmanager
async def anthropic_double() -> AsyncIterator[AnthropicDouble]:
    double = AnthropicDouble()
    async with serving(double.app()) as address:
        double.url = address
        yield double
