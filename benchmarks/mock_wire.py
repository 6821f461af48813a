"""The mock provider's bytes: prebuilt events, sent with or without delays."""

import asyncio
import socket
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import orjson
from aiohttp import web

from benchmarks.mock_spec import Spec

ARGUMENT = 8  # characters of a tool's arguments in one event
BURST = 64  # tokens a write where there is no delay between them
_HEAD = b'data: {"id":"chatcmpl-mock","object":"chat.completion.chunk","created":1700000000,"model":"mock","choices":['
DONE = b"data: [DONE]\n\n"
MALFORMED = _HEAD + b'{"index":0,"delta":{"content":" t\n\n'
ERROR_EVENT = b'data: {"error":{"message":"the mock failed in mid-stream","type":"server_error","code":"mock"}}\n\n'


def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return _HEAD + orjson.dumps({"index": 0, "delta": delta, "finish_reason": finish}) + b"]}\n\n"


@lru_cache(maxsize=65536)
def token_event(token: str) -> bytes:
    return event({"content": token})


ROLE_EVENT = event({"role": "assistant", "content": ""})


def error(status: int, message: str, **headers: str) -> web.Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json", headers=headers)


def usage_event(usage: dict[str, Any]) -> bytes:
    return _HEAD + b'],"usage":' + orjson.dumps(usage) + b"}\n\n"


def usage_of(messages: list[dict[str, Any]], completion: int) -> dict[str, Any]:
    prompt = sum(len(str(m.get("content")).split()) + 4 for m in messages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def call_events(calls: list[dict[str, Any]]) -> list[bytes]:
    """Each call's name, then its arguments in pieces."""
    events = []
    for index, call in enumerate(calls):
        arguments = call["function"]["arguments"]
        head = {"index": index, **call, "function": {"name": call["function"]["name"], "arguments": ""}}
        events.append(event({"tool_calls": [head]}))
        for start in range(0, len(arguments), ARGUMENT):
            part = {"arguments": arguments[start : start + ARGUMENT]}
            events.append(event({"tool_calls": [{"index": index, "function": part}]}))
    return events


def whole(tokens: list[str], finish: str, usage: dict[str, Any], calls: list[dict[str, Any]]) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(tokens)}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "finish_reason": finish}
    head = {"id": "chatcmpl-mock", "object": "chat.completion", "created": 1700000000, "model": "mock"}
    return orjson.dumps(head | {"choices": [choice], "usage": usage})


async def send(
    request: web.Request, response: web.StreamResponse, spec: Spec, events: list[bytes], count: Callable[[int], None]
) -> None:
    """Send one event a token, with the delays asked for; `count` hears how many went out."""
    if spec.ttft:
        await asyncio.sleep(spec.ttft / 1000)
    if spec.itl:
        await drip(request, [b"%x\r\n%b\r\n" % (len(e), e) for e in events], spec.itl / 1000, count)
        return
    for start in range(0, len(events), BURST):
        burst = events[start : start + BURST]
        count(len(burst))
        await response.write(b"".join(burst))


async def drip(request: web.Request, chunks: list[bytes], delay: float, count: Callable[[int], None]) -> None:
    """Write one HTTP chunk every `delay` seconds, from timers: a task switch a token would cost twice as much."""
    loop, transport = asyncio.get_running_loop(), request.transport
    if transport is None or not chunks:
        return
    done = loop.create_future()
    start = loop.time()
    timer: asyncio.TimerHandle | None = None

    def tick(index: int) -> None:
        nonlocal timer
        if done.done() or transport.is_closing():
            return
        transport.write(chunks[index])
        count(1)
        if index + 1 == len(chunks):
            done.set_result(None)
        else:
            timer = loop.call_at(start + (index + 1) * delay, tick, index + 1)

    tick(0)
    try:
        await done
    finally:
        if timer is not None:
            timer.cancel()


def reset_connection(request: web.Request) -> None:
    """Close with a TCP reset."""
    if request.transport is not None:
        sock = request.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
