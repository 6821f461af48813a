"""The WebSocket protocol (RFC 6455) as this service speaks it, in uvicorn: small, with a heartbeat, and a last word.

Compression is off: its windows take 50 KB a socket. A peer that does not answer a ping is cut off. When the server
stops, each peer is told to come back, each a little later than the other, so that they do not all come at once.
"""

import asyncio
import random
from typing import Any, cast

import orjson
import uvicorn.config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import OPEN

LARGEST = 256 * 1024  # bytes of a message: 32,000 characters, and what goes with them
PING, PONG = 30.0, 20.0  # seconds between pings, and for an answer
RETURNS = 500  # peers that come back in a second
LONGEST = 30.0  # seconds over which they do
UNREADABLE = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"  # such as a header of 9 KiB
FINAL = 5.0  # seconds for a peer to read what was written, before its connection is dropped


class Inbox:
    """What of `asyncio.Queue` the protocol needs, for its one reader, without the two kilobytes of its deques."""

    __slots__ = ("_reader", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[Any] = []
        self._reader: asyncio.Future[None] | None = None

    def put_nowait(self, message: Any) -> None:
        self._waiting.append(message)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def get(self) -> Any:
        while not self._waiting:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._waiting.pop(0)

    def empty(self) -> bool:
        return not self._waiting


class Gate:
    """What of `asyncio.Event` the protocol needs; open at first."""

    __slots__ = ("_shut",)

    def __init__(self) -> None:
        self._shut: asyncio.Future[None] | None = None

    def set(self) -> None:
        if self._shut is not None and not self._shut.done():
            self._shut.set_result(None)
        self._shut = None

    def clear(self) -> None:
        if self._shut is None:
            self._shut = asyncio.get_running_loop().create_future()

    async def wait(self) -> None:
        while self._shut is not None:
            await asyncio.shield(self._shut)


class SocketProtocol(WebSocketsSansIOProtocol):
    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        config.ws_per_message_deflate, config.ws_max_size = False, LARGEST
        config.ws_ping_interval, config.ws_ping_timeout = PING, PONG
        super().__init__(config, *args, **kwargs)
        self.queue = cast(Any, Inbox())
        self.writable = cast(Any, Gate())

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated and self.conn.handshake_exc is not None:  # which nobody else would answer
            self.transport.write(UNREADABLE)
            self.transport.close()

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # by a refusal, which is no error

    def start_keepalive(self) -> None:
        """The first ping comes at any time: sockets that were opened together are not pinged together."""
        self.request = self.response = cast(Any, None)  # of the upgrade: three kilobytes that nobody needs any more
        self.ping_timer = self.loop.call_later(PING * random.uniform(0.5, 1), self.send_keepalive_ping)

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.drop_later()

    def shutdown(self) -> None:
        if self.handshake_complete and not self.close_sent and self.conn.state is OPEN:
            self.conn.send_text(come_back(len(self.connections)))
            self.transport.write(b"".join(self.conn.data_to_send()))
        super().shutdown()
        self.drop_later()

    def drop_later(self) -> None:
        self.loop.call_later(FINAL, self.transport.abort)


def come_back(sockets: int) -> bytes:
    """The frame that asks the client of one of so many sockets to connect again."""
    spread = min(LONGEST, sockets / RETURNS)
    return orjson.dumps({"op": "reconnect", "after_ms": round(random.uniform(0, spread) * 1000)})


def install() -> None:
    """Make this the protocol of every server that uvicorn starts in this process without naming another."""
    protocols = cast(dict[str, str], uvicorn.config.WS_PROTOCOLS)
    protocols["auto"] = f"{SocketProtocol.__module__}:{SocketProtocol.__qualname__}"


def abort(transmit: Any) -> None:
    """Drop the connection that an ASGI `send` writes to, where that can be seen."""
    protocol = getattr(transmit, "__self__", None)
    if isinstance(protocol, SocketProtocol):
        asyncio.get_running_loop().call_later(FINAL, protocol.transport.abort)
