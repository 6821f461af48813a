"""Somebody else's server that takes webhooks: checks their signatures, and fails, dawdles or goes away on demand."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from adapters.allow_list import AllowList
from adapters.standard_webhooks import BadSignature, verify
from tests.conftest import free_port

ALLOWED = AllowList.parse("127.0.0.0/8")  # where tests' URLs may lead


@dataclass
class Heard:
    id: str
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass
class Receiver:
    """`secrets`: those that it knows; requests that none of them signed are answered 401. `answers`: what the next
    requests are answered, then `usual`; a callable is asked. `heard`: what was taken; `refused`: all else."""

    url: str = ""
    secrets: list[bytes] = field(default_factory=list)
    usual: int = 204
    answers: list[int | Callable[[Heard], int]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    heard: list[Heard] = field(default_factory=list)
    refused: list[Heard] = field(default_factory=list)
    pause: float = 0
    go: asyncio.Event | None = None
    unsigned: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def ids(self) -> list[str]:
        return [one.id for one in self.heard]

    def types(self) -> list[str]:
        return [one.body["type"] for one in self.heard]

    async def until(self, condition: Callable[[], bool], within: float = 20) -> None:
        async with asyncio.timeout(within), self._changed:
            await self._changed.wait_for(condition)

    async def take(self, request: web.Request) -> web.Response:
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            id = verify(self.secrets, headers, raw, time.time())
        except BadSignature:
            self.unsigned += 1
            return web.Response(status=401)
        heard = Heard(id, json.loads(raw), headers)
        if self.pause:
            await asyncio.sleep(self.pause)
        if self.go is not None:
            await self.go.wait()
        answer = self.answers.pop(0) if self.answers else self.usual
        status = answer if isinstance(answer, int) else answer(heard)
        async with self._changed:
            (self.heard if status < 300 else self.refused).append(heard)
            self._changed.notify_all()
        return web.Response(status=status, text=self.text or None, headers=self.headers)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/{path:.*}", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    receiver.url = f"http://127.0.0.1:{port}/hook"
    try:
        yield receiver
    finally:
        if receiver.go is not None:
            receiver.go.set()
        await runner.cleanup()


@contextmanager
def receiving_beside() -> Iterator[Receiver]:
    """In a thread of its own, for tests that wait by themselves."""
    ready, over = threading.Event(), asyncio.Event()
    found: list[Receiver] = []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with receiving() as receiver:
            found.append(receiver)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
