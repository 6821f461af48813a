"""Somebody else's messaging service, by docs/service-channel.md: a reference, and one that fails on demand."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from adapters.standard_webhooks import BadSignature, verify
from tests.conftest import free_port

Json = dict[str, Any]


@dataclass(eq=False)
class Line:
    request: web.Request
    socket: web.WebSocketResponse
    channel: str
    hello: Json
    closed: int | None = None

    async def say(self, frame: Json) -> None:
        with suppress(ConnectionError):
            await self.socket.send_str(json.dumps(frame))

    def cut(self) -> None:
        if self.request.transport is not None:
            self.request.transport.abort()


@dataclass
class MessagingService:
    """`secrets`: those that it knows. `lines`: connections with a welcome, by the time they came; `live`: the newest of
    each channel. `heard`: what it was told, each id once; `attempts`: all of it. `acks`: answers to what it told.

    On demand: `cut_before_ack`: cut the line in place of so many acknowledgements; `cut_on_ack`: the same when so many
    answers come; `refusals`: what is answered in place of the next acknowledgements; `mute`: no pong; `twice`: tell all
    of it twice; `version`: another one.
    """

    url: str = ""
    secrets: list[bytes] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    live: dict[str, Line] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    heard: list[Json] = field(default_factory=list)
    attempts: list[Json] = field(default_factory=list)
    acks: dict[str, list[Json]] = field(default_factory=lambda: defaultdict(list))
    waiting: dict[str, dict[str, Json]] = field(default_factory=lambda: defaultdict(dict))
    unsigned: int = 0
    pings: int = 0
    cut_before_ack: int = 0
    cut_on_ack: int = 0
    refusals: list[Json] = field(default_factory=list)
    mute: bool = False
    twice: bool = False
    version: int = 1
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, condition: Callable[[], Any], within: float = 30) -> None:
        async with asyncio.timeout(within), self._changed:
            await self._changed.wait_for(condition)

    def types(self, type: str) -> list[Json]:
        return [one for one in self.heard if one["type"] == type]

    async def tell(self, channel: str, id: str, thread: str, text: str = "hi", **fields: Any) -> None:
        """Until it is acknowledged: again after each welcome."""
        frame = {"frame": "tell", "id": id, "type": "message", "thread": thread, "user": "ann", "text": text, **fields}
        self.waiting[channel][id] = frame
        if (line := self.live.get(channel)) is not None:
            for _ in range(1 + self.twice):
                await line.say(frame)

    async def acked(self, *ids: str) -> None:
        await self.until(lambda: all(self.acks[id] for id in ids), 60)

    async def take(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            id = verify(self.secrets, headers, b"", time.time())
        except BadSignature:
            async with self._changed:
                self.unsigned += 1
                self._changed.notify_all()
            return web.Response(status=401)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        hello = json.loads(await socket.receive_str())
        channel, epoch = hello["channel_id"], hello["epoch"]
        if hello["frame"] != "hello" or id != f"{channel}.{epoch}" or epoch < self.epochs[channel]:
            await socket.close(code=4409)
            return socket
        self.epochs[channel] = epoch
        if (before := self.live.get(channel)) is not None:
            await before.socket.close(code=4409)
        line = Line(request, socket, channel, hello)
        await line.say({"frame": "welcome", "version": self.version})
        async with self._changed:
            self.live[channel] = line
            self.lines.append(line)
            self._changed.notify_all()
        for frame in list(self.waiting[channel].values()):
            await line.say(frame)
        await self._read(line)
        return socket

    async def _read(self, line: Line) -> None:
        async for raw in line.socket:
            if raw.type is WSMsgType.TEXT:
                await self._frame(line, json.loads(raw.data))
        async with self._changed:
            line.closed = line.socket.close_code
            if self.live.get(line.channel) is line:
                del self.live[line.channel]
            self._changed.notify_all()

    async def _frame(self, line: Line, frame: Json) -> None:
        if frame["frame"] == "ping":
            self.pings += 1
            if not self.mute:
                await line.say({"frame": "pong", "id": frame["id"]})
        elif frame["frame"] == "tell":
            await self._told(line, frame)
        elif frame["frame"] in ("ack", "error"):
            if self.cut_on_ack:
                self.cut_on_ack -= 1
                line.cut()
                return
            self.acks[frame["id"]].append(frame)
            self.waiting[line.channel].pop(frame["id"], None)
        async with self._changed:
            self._changed.notify_all()

    async def _told(self, line: Line, frame: Json) -> None:
        self.attempts.append(frame)
        if self.cut_before_ack and frame["type"] != "typing":
            self.cut_before_ack -= 1
            line.cut()
            return
        if self.refusals and frame["type"] != "typing":
            await line.say({"frame": "error", "id": frame["id"], **self.refusals.pop(0)})
            return
        if frame["id"] not in {one["id"] for one in self.heard}:
            self.heard.append(frame)
        await line.say({"frame": "ack", "id": frame["id"]})


@asynccontextmanager
async def messaging() -> AsyncIterator[MessagingService]:
    service = MessagingService()
    app = web.Application()
    app.router.add_get("/line", service.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    service.url = f"ws://127.0.0.1:{port}/line"
    try:
        yield service
    finally:
        for line in service.live.values():
            line.cut()
        await runner.cleanup()
