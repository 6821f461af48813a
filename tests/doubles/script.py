"""What a double says next, and what all doubles share: their script, what they received, and the way to serve them."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

KEY = "key-hunter2"
PIXEL = (  # a PNG of one pixel
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@dataclass(frozen=True)
class Call:
    """A tool call; `parts` are its arguments as they are streamed."""

    id: str
    name: str
    parts: tuple[str, ...] = ()

    @property
    def arguments(self) -> str:
        return "".join(self.parts)


@dataclass(frozen=True)
class Said:
    """One answer. `fault`, after `at` events of content: `cut` (a TCP reset), `truncate` (a clean end), `error` (the
    provider's error event, `error` being (type or code, message)), `malformed`. `status` other than 200: an HTTP error.
    `finish` and `usage` in the provider's own words. `hold`: nothing more is said until it is set.
    """

    text: tuple[str, ...] = ("Hel", "lo")
    calls: tuple[Call, ...] = ()
    thinking: tuple[str, ...] = ()
    refusal: str = ""
    finish: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    fault: str = ""
    at: int = 0
    status: int = 200
    error: tuple[str, str] = ("server_error", "it broke")
    headers: dict[str, str] = field(default_factory=dict)
    streams: bool = True
    hold: asyncio.Event | None = None


@dataclass
class Received:
    """One request that came in."""

    headers: dict[str, str]
    body: dict[str, Any]


class Double:
    """A server whose answers follow `script`, one a call; the last one stays."""

    def __init__(self) -> None:
        self.script: list[Said] = [Said()]
        self.received: list[Received] = []
        self.url = ""

    @property
    def body(self) -> dict[str, Any]:
        """The body that came last."""
        return self.received[-1].body

    def says(self, *script: Said) -> None:
        self.script = list(script)

    def next(self) -> Said:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    def receive(self, request: web.Request, body: dict[str, Any]) -> None:
        self.received.append(Received({name.lower(): value for name, value in request.headers.items()}, body))


def event(data: Any, name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


async def stream(
    request: web.Request, said: Said, opening: list[bytes], content: list[bytes], closing: list[bytes], error: bytes
) -> web.StreamResponse:
    """Say it all, or up to the fault; event by event, so that readers see it in pieces."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", **said.headers})
    await response.prepare(request)
    for one in [*opening, *(content[: said.at] if said.fault else content)]:
        await response.write(one)
        await asyncio.sleep(0)
    if said.hold is not None:
        await said.hold.wait()
    match said.fault:
        case "cut":
            reset(request)
            return response
        case "error":
            await response.write(error)
        case "malformed":
            await response.write(b'data: {"type": "cont\n\n')
        case "":
            await response.write(b"".join(closing))
    await response.write_eof()
    return response


def reset(request: web.Request) -> None:
    """Close with a TCP reset."""
    assert request.transport is not None
    sock = request.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """`app` on a free port of loopback; its address, without a path."""
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()
