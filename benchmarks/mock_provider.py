"""A strict OpenAI-compatible server that says known tokens and fails as told: `python -m benchmarks.mock_provider`.

`benchmarks.mock_spec` tells what a model name can ask for. `GET /stats` counts calls and streams, `GET /calls` lists
the last calls with the tokens that this provider would charge for, `POST /reset` forgets.
"""

import argparse
import asyncio
import contextlib
import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
from aiohttp import web

from benchmarks.mock_spec import Spec, calls_of, check, last_user_message, tokens_of
from benchmarks.mock_wire import (
    DONE,
    ERROR_EVENT,
    MALFORMED,
    ROLE_EVENT,
    call_events,
    error,
    event,
    reset_connection,
    send,
    token_event,
    usage_event,
    usage_of,
    whole,
)

KEPT_CALLS = 100_000
BROKEN = ("hang_after", "malformed", "cut", "truncate", "error_event")
SSE = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}


@dataclass(slots=True)
class Counted:
    """One call as the provider counts it: the prompt once it began to answer, and every token that it sent.

    `ended`: complete, broken (as the model name asked), left (by the client) or refused. `told`: it sent its usage.
    """

    model: str
    user: str
    prompt: int = 0
    completion: int = 0
    ended: str = "left"
    told: bool = False

    def count(self, tokens: int) -> None:
        self.completion += tokens


class MockProvider:
    """The server's state: what was called, and which streams are open."""

    def __init__(self, key: str | None = None) -> None:
        self.key = key
        self.reset()

    def reset(self) -> None:
        self.calls, self.open_streams, self.closed_early = 0, 0, 0
        self.by_user: Counter[str] = Counter()
        self.counted: deque[Counted] = deque(maxlen=KEPT_CALLS)
        self._faults: Counter[tuple[str, str]] = Counter()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/embeddings", self.embeddings)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/stats", self.stats)
        app.router.add_get("/calls", self.list_calls)
        app.router.add_post("/reset", self.forget)
        return app

    async def stats(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "calls": self.calls,
                "by_user": dict(self.by_user),
                "open_streams": self.open_streams,
                "closed_early": self.closed_early,
            }
        )

    async def list_calls(self, request: web.Request) -> web.Response:
        return web.json_response([asdict(call) for call in self.counted])

    async def forget(self, request: web.Request) -> web.Response:
        open_streams = self.open_streams
        self.reset()
        self.open_streams = open_streams
        return web.json_response({"ok": True})

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "mock", "object": "model", "owned_by": "mock"}]})

    async def embeddings(self, request: web.Request) -> web.Response:
        body = await request.json(loads=orjson.loads)
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        size = body.get("dimensions", 384)
        data = []
        for index, text in enumerate(texts):
            raw = hashlib.shake_256(text.encode()).digest(size)
            vector = [byte / 127.5 - 1 for byte in raw]
            norm = sum(x * x for x in vector) ** 0.5 or 1.0
            data.append({"object": "embedding", "index": index, "embedding": [x / norm for x in vector]})
        total = sum(len(text) // 4 + 1 for text in texts)
        usage = {"prompt_tokens": total, "total_tokens": total}
        return web.json_response({"object": "list", "data": data, "model": body.get("model"), "usage": usage})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("Authorization", "")
        if self.key is not None and authorization != f"Bearer {self.key}":
            return error(401, "Incorrect API key provided")
        try:
            body = orjson.loads(await request.read())
            spec = check(body)
        except ValueError as reason:
            return error(400, str(reason))
        messages = body["messages"]
        user = last_user_message(messages)
        self.calls += 1
        self.by_user[user] += 1
        fault = self._fault(spec, body["model"], user)
        counted = Counted(body["model"], user, ended="refused")
        self.counted.append(counted)
        if fault == "status":
            headers = {"Retry-After": spec.retry_after} if spec.retry_after else {}
            return error(spec.status or 500, f"the mock answers {spec.status or 500}", **headers)
        if fault == "leak":
            return error(401, f"Incorrect API key provided: {authorization}")
        if fault == "html":
            return web.Response(text="<html>Sign in to the network</html>", content_type="text/html")
        tokens, finish = tokens_of(spec, messages, body.get("max_tokens", body.get("max_completion_tokens")))
        if calls := calls_of(spec, body):
            finish = "tool_calls"
        events = [*map(token_event, tokens), *call_events(calls)]
        usage = usage_of(messages, len(events))
        counted.prompt, counted.ended = usage["prompt_tokens"], "left"
        self.open_streams += 1
        try:
            if fault == "hang_before":
                await asyncio.Event().wait()
            if not body.get("stream") or fault == "ignore_stream":
                await asyncio.sleep((spec.ttft + spec.itl * len(events)) / 1000)
                counted.completion, counted.ended, counted.told = len(events), "complete", True
                return web.Response(body=whole(tokens, finish, usage, calls), content_type="application/json")
            wants_usage = (body.get("stream_options") or {}).get("include_usage") and fault != "no_usage"
            tail = [event({}, finish)]
            if wants_usage:
                tail.append(usage_event(usage))
            if fault != "no_done":
                tail.append(DONE)
            answer = await self._stream(request, spec, fault, events, b"".join(tail), counted.count)
            counted.ended = "broken" if fault in BROKEN else "complete"
            counted.told = bool(wants_usage) and fault not in BROKEN
            return answer
        except asyncio.CancelledError:
            self.closed_early += 1
            raise
        except ConnectionResetError:
            self.closed_early += 1
            return web.Response(status=499)  # nobody reads it; raised, it would be logged as a fault of the mock's
        finally:
            self.open_streams -= 1

    def _fault(self, spec: Spec, model: str, user: str) -> str:
        if not spec.fault or not spec.times:
            return spec.fault
        counted = (model, user if spec.per == "message" else "")
        self._faults[counted] += 1
        return spec.fault if self._faults[counted] <= spec.times else ""

    async def _stream(
        self,
        request: web.Request,
        spec: Spec,
        fault: str,
        events: list[bytes],
        tail: bytes,
        count: Callable[[int], None],
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=SSE)
        await response.prepare(request)
        await response.write(ROLE_EVENT)
        await send(request, response, spec, events[: spec.at] if fault in BROKEN else events, count)
        match fault:
            case "hang_after":
                await asyncio.Event().wait()
            case "malformed":
                await response.write(MALFORMED)
                await send(request, response, spec, events[spec.at :], count)
            case "error_event":
                await response.write(ERROR_EVENT)
            case "cut":
                await asyncio.sleep(0.02)  # what was sent arrives, then the reset
                reset_connection(request)
                return response
        if fault not in ("truncate", "error_event"):
            await response.write(tail)
        await response.write_eof()
        return response


async def serve(provider: MockProvider, host: str = "127.0.0.1", port: int = 0) -> tuple[web.AppRunner, str]:
    """Start the server; gives its runner (`await runner.cleanup()` stops it) and its base URL, which ends in /v1."""
    # With handler_cancellation a handler ends when its client leaves, also while it waits.
    runner = web.AppRunner(provider.app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=4096)
    await site.start()
    return runner, f"http://{host}:{runner.addresses[0][1]}/v1"


async def run(host: str, port: int, key: str | None, ready_file: Path | None) -> None:
    _, url = await serve(MockProvider(key), host, port)
    if ready_file is not None:
        partial = ready_file.with_name(ready_file.name + ".new")
        partial.write_bytes(orjson.dumps({"url": url, "pid": os.getpid()}))
        partial.replace(ready_file)
    print(url, flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--key", help="the API key that callers must present")
    parser.add_argument("--ready-file", type=Path, help="written with {url, pid} once the server listens")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(options.host, options.port, options.key, options.ready_file))


if __name__ == "__main__":
    main()
