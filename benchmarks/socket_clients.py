"""WebSocket clients that cost little: a few kilobytes each, and no work but to note when a frame came."""

import asyncio
import base64
import os
import struct
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import orjson

Heard = Callable[[bytes, float], None]
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA


class LeanSocket(asyncio.Protocol):
    """The client's side of RFC 6455, without compression. `heard` gets each text and the time it came."""

    __slots__ = ("_rest", "closed", "heard", "opened", "transport")

    def __init__(self) -> None:
        self._rest = b""
        self.heard: Heard = lambda text, at: None
        self.opened: asyncio.Future[None] | None = asyncio.get_running_loop().create_future()
        self.closed = False
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self.opened is not None and not self.opened.done():
            self.opened.set_exception(error or ConnectionError("the connection was closed"))

    def data_received(self, data: bytes) -> None:
        at = time.perf_counter()
        data = self._rest + data
        if self.opened is not None:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            opened, self.opened = self.opened, None
            if not head.startswith(b"HTTP/1.1 101"):
                opened.set_exception(ConnectionError(head.decode(errors="replace")[:300]))
                return
            opened.set_result(None)
        while (frame := _frame(data)) is not None:
            kind, payload, data = frame
            if kind == TEXT:
                self.heard(payload, at)
            elif kind == PING:
                self._write(PONG, payload)
            elif kind == CLOSE:
                self.transport.close()
        self._rest = data

    def tell(self, op: str, **fields: Any) -> None:
        self._write(TEXT, orjson.dumps({"op": op, **fields}))

    def close(self) -> None:
        self.transport.close()

    def _write(self, kind: int, payload: bytes) -> None:
        size, mask = len(payload), os.urandom(4)
        head = (
            struct.pack("!BB", 0x80 | kind, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x80 | kind, 254, size)
        )
        masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
        self.transport.write(head + mask + masked)


async def open_socket(url: str, token: str) -> LeanSocket:
    """An open, authenticated socket."""
    parts = urlsplit(url)
    _, made = await asyncio.get_running_loop().create_connection(LeanSocket, parts.hostname, parts.port)
    lines = (
        f"GET {parts.path} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        f"Sec-WebSocket-Protocol: brain.v1, bearer.{token}",
    )
    made.transport.write("\r\n".join((*lines, "", "")).encode())
    assert made.opened is not None
    async with asyncio.timeout(60):
        await made.opened
    return made


async def asked(socket: LeanSocket, op: str, **fields: Any) -> dict[str, Any]:
    """The answer of a frame; frames before it are dropped."""
    answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def heard(text: bytes, at: float) -> None:
        frame = orjson.loads(text)
        if frame.get("ref") == 1 and not answer.done():
            answer.set_result(frame)

    socket.heard = heard
    socket.tell(op, ref=1, **fields)
    async with asyncio.timeout(60):
        found = await answer
    if found["op"] == "error":
        raise RuntimeError(found["message"])
    return found


def _frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Kind and payload of the first frame, and what follows it."""
    if len(data) < 2:
        return None
    size, start = data[1] & 0x7F, 2
    if size >= 126:
        width = 2 if size == 126 else 8
        if len(data) < 2 + width:
            return None
        size, start = int.from_bytes(data[2 : 2 + width]), 2 + width
    if len(data) < start + size:
        return None
    return data[0] & 0x0F, data[start : start + size], data[start + size :]
