"""A strict double of OpenAI's Responses API, with background mode: https://platform.openai.com/docs/guides/background."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_create_params import (
    ResponseCreateParamsNonStreaming,
    ResponseCreateParamsStreaming,
)
from pydantic import TypeAdapter

from tests.doubles.conforms import check
from tests.doubles.openai_double import NAME, error, must
from tests.doubles.script import KEY, Double, Said, event, reset, serving

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
USAGE = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 18,
}


@dataclass
class Running:
    """A response and its events, which in the background come whether or not anybody listens."""

    body: dict[str, Any]
    events: list[dict[str, Any]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    status: str = "in_progress"
    task: asyncio.Task[None] | None = None

    async def end(self, status: str) -> None:
        async with self.changed:
            self.status = status
            self.changed.notify_all()

    async def beyond(self, place: int) -> None:
        """Return when there are more than `place` events, or no more will come."""
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.events) > place or self.status != "in_progress")


class ResponsesDouble(Double):
    """`responses`: those that were stored, by id."""

    def __init__(self) -> None:
        super().__init__()
        self.responses: dict[str, Running] = {}
        self.resumed: list[str] = []
        self.cancelled: list[str] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/responses", self.create)
        app.router.add_get("/v1/responses/{id}", self.retrieve)
        app.router.add_post("/v1/responses/{id}/cancel", self.cancel)
        return app

    async def create(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return error(401, "invalid_request_error", "Incorrect API key provided", "invalid_api_key")
        try:
            body = await request.json()
            streams = bool(isinstance(body, dict) and body.get("stream"))
            check(body, ResponseCreateParamsStreaming if streams else ResponseCreateParamsNonStreaming)
            rules(body)
        except ValueError as wrong:
            return error(400, "invalid_request_error", str(wrong))
        self.receive(request, body)
        said = self.next()
        if said.status != 200:
            return error(said.status, "error", said.error[1], said.error[0], said.headers)
        ref = f"resp_{len(self.received)}"
        running = Running(body)
        if not streams or not said.streams:
            return web.json_response(whole(ref, body, said), headers=said.headers)
        if body.get("store", True):
            self.responses[ref] = running
        running.task = asyncio.create_task(produce(ref, running, said))
        try:
            return await self.tell(request, running, 0, said)
        finally:
            if not body.get("background"):
                running.task.cancel()

    async def retrieve(self, request: web.Request) -> web.StreamResponse:
        running = self.responses.get(request.match_info["id"])
        if running is None or request.headers.get("Authorization") != f"Bearer {KEY}":
            return error(404, "invalid_request_error", "Response not found")
        if request.query.get("stream") != "true" or not running.body.get("background"):
            return error(400, "invalid_request_error", "only a background response can be streamed again")
        self.resumed.append(request.query.get("starting_after", ""))
        after = int(request.query.get("starting_after", -1))
        return await self.tell(request, running, after + 1, Said())

    async def cancel(self, request: web.Request) -> web.Response:
        ref = request.match_info["id"]
        running = self.responses.get(ref)
        if running is None or not running.body.get("background"):
            return error(400, "invalid_request_error", "Cannot cancel a synchronous response.")
        assert running.task is not None
        running.task.cancel()
        await running.end("cancelled")
        self.cancelled.append(ref)
        return web.json_response(response_of(ref, running.body, [], "cancelled"))

    async def tell(self, request: web.Request, running: Running, start: int, said: Said) -> web.StreamResponse:
        """Events from number `start` on; a `fault` that is this connection's own ends it."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", **said.headers})
        await response.prepare(request)
        place = start
        while True:
            await running.beyond(place)
            for one in running.events[place:]:
                if said.fault in ("cut", "truncate") and place >= said.at:
                    if said.fault == "cut":
                        await asyncio.sleep(0.02)  # what was sent arrives, then the reset
                        reset(request)
                    else:
                        await response.write_eof()
                    return response
                await response.write(event(one, one["type"]))
                place += 1
            if running.status != "in_progress" and place >= len(running.events):
                await response.write_eof()
                return response


async def produce(ref: str, running: Running, said: Said) -> None:
    for data in events_of(ref, running.body, said):
        if said.hold is not None and len(running.events) >= said.at:
            await said.hold.wait()
        data["sequence_number"] = len(running.events)
        EVENT.validate_python(data)
        async with running.changed:
            running.events.append(data)
            running.changed.notify_all()
        await asyncio.sleep(0)
    await running.end("completed")


def rules(body: dict[str, Any]) -> None:
    """What the types do not say. Raises ValueError."""
    must(not body.get("background") or body.get("store", True), "background requires store to be true")
    must(body.get("max_output_tokens", 16) >= 16, "max_output_tokens: expected a value >= 16")
    must(body.get("input"), "input: is required")
    calls: dict[str, bool] = {}
    for item in body["input"] if isinstance(body["input"], list) else []:
        kind = item.get("type", "message")
        if kind == "function_call":
            calls[item["call_id"]] = False
        elif kind == "function_call_output":
            must(
                item["call_id"] in calls, f"No tool call found for function call output with call_id {item['call_id']}"
            )
            calls[item["call_id"]] = True
        elif isinstance(item.get("content"), list):
            for part in item["content"]:
                must(part["type"].startswith("input_") == (item["role"] != "assistant"), "content: wrong part")
                url = part.get("image_url")
                must(url is None or re.match(r"https?://|data:image/", url), "image_url: not a valid URL")
    must(all(calls.values()), "No tool output found for function call")
    names = [tool["name"] for tool in body.get("tools", [])]
    must(all(NAME.fullmatch(name) for name in names), "tools.name does not match the pattern")
    must(names or "tool_choice" not in body, "tool_choice: needs tools")
    if isinstance(choice := body.get("tool_choice"), dict):
        must(choice["name"] in names, "tool_choice: not among the tools")
    form = (body.get("text") or {}).get("format") or {"type": "text"}
    if form["type"] == "json_object":
        told = json.dumps([body["input"], body.get("instructions")]).lower()
        must("json" in told, "the input must contain the word 'json'")
    if form["type"] == "json_schema":
        must(NAME.fullmatch(form["name"]), "text.format.name")


def response_of(
    ref: str, body: dict[str, Any], output: list[dict[str, Any]], status: str, **fields: Any
) -> dict[str, Any]:
    made = {
        "id": ref,
        "object": "response",
        "created_at": 1_700_000_000,
        "model": body["model"],
        "output": output,
        "status": status,
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "error": None,
        "incomplete_details": None,
        **fields,
    }
    Response.model_validate(made)
    return made


def items_of(said: Said) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if said.thinking:
        items.append({"type": "reasoning", "id": "rs_1", "summary": []})
    if said.text or said.refusal:
        part: dict[str, Any] = {"type": "output_text", "text": "".join(said.text), "annotations": [], "logprobs": []}
        if said.refusal:
            part = {"type": "refusal", "refusal": said.refusal}
        items.append({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]})
    for call in said.calls:
        named = {"id": f"fc_{call.id}", "call_id": call.id, "name": call.name, "arguments": call.arguments}
        items.append({"type": "function_call", **named, "status": "completed"})
    return items


def end_of(ref: str, body: dict[str, Any], said: Said) -> dict[str, Any]:
    """The last event's response: complete, or incomplete or failed where the script says so."""
    usage = said.usage or USAGE
    if said.fault == "error":
        failed = {"code": said.error[0], "message": said.error[1]}
        return response_of(ref, body, [], "failed", error=failed)
    if said.finish:
        return response_of(
            ref, body, items_of(said), "incomplete", incomplete_details={"reason": said.finish}, usage=usage
        )
    return response_of(ref, body, items_of(said), "completed", usage=usage)


def whole(ref: str, body: dict[str, Any], said: Said) -> dict[str, Any]:
    return end_of(ref, body, said)


def events_of(ref: str, body: dict[str, Any], said: Said) -> list[dict[str, Any]]:
    """All events in order, without their numbers."""
    begun = response_of(ref, body, [], "in_progress")
    events: list[dict[str, Any]] = [
        {"type": kind, "response": begun} for kind in ("response.created", "response.in_progress")
    ]
    for place, item in enumerate(items_of(said)):
        at = {"output_index": place, "item_id": item["id"]}
        empty = {**item, "status": "in_progress"}
        if item["type"] == "message":
            empty["content"] = []
        elif item["type"] == "function_call":
            empty["arguments"] = ""
        else:
            empty.pop("status")
        events.append({"type": "response.output_item.added", "output_index": place, "item": empty})
        events += deltas_of(item, at, said)
        events.append({"type": "response.output_item.done", "output_index": place, "item": item})
    end = end_of(ref, body, said)
    if said.fault == "error":
        return [*events[: 2 + said.at], {"type": "response.failed", "response": end}]
    return [*events, {"type": f"response.{end['status']}", "response": end}]


def deltas_of(item: dict[str, Any], at: dict[str, Any], said: Said) -> list[dict[str, Any]]:
    if item["type"] == "reasoning":
        kind = "response.reasoning_summary_text.delta"
        return [{"type": kind, **at, "summary_index": 0, "delta": text} for text in said.thinking]
    if item["type"] == "function_call":
        call = next(call for call in said.calls if call.id == item["call_id"])
        events = [{"type": "response.function_call_arguments.delta", **at, "delta": part} for part in call.parts]
        done = {"type": "response.function_call_arguments.done", "name": call.name, "arguments": call.arguments}
        return [*events, {**at, **done}]
    where = {**at, "content_index": 0}
    part = item["content"][0]
    if said.refusal:
        deltas = [{"type": "response.refusal.delta", **where, "delta": said.refusal}]
        done = {"type": "response.refusal.done", **where, "refusal": said.refusal}
    else:
        deltas = [{"type": "response.output_text.delta", **where, "delta": text, "logprobs": []} for text in said.text]
        done = {"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []}
    begun = {"type": "refusal", "refusal": ""} if said.refusal else {**part, "text": ""}
    added = {"type": "response.content_part.added", **where, "part": begun}
    return [added, *deltas, done, {"type": "response.content_part.done", **where, "part": part}]


@asynccontextmanager
async def responses_double() -> AsyncIterator[ResponsesDouble]:
    double = ResponsesDouble()
    async with serving(double.app()) as address:
        double.url = f"{address}/v1"
        yield double
    for running in double.responses.values():
        if running.task is not None:
            running.task.cancel()
