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
FINAL = 5.0  # seconds for a peer to read what was written, before its connection is dropped


class SocketProtocol(WebSocketsSansIOProtocol):
    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        config.ws_per_message_deflate, config.ws_max_size = False, LARGEST
        config.ws_ping_interval, config.ws_ping_timeout = PING, PONG
        super().__init__(config, *args, **kwargs)

    def start_keepalive(self) -> None:
        """The first ping comes at any time: sockets that were opened together are not pinged together."""
        self.ping_timer = self.loop.call_later(PING * random.uniform(0.5, 1), self.send_keepalive_ping)

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.drop_later()

    def shutdown(self) -> None:
        if self.handshake_complete and not self.close_sent and self.conn.state is OPEN:
            spread = min(LONGEST, len(self.connections) / RETURNS)
            hint = {"op": "reconnect", "after_ms": round(random.uniform(0, spread) * 1000)}
            self.conn.send_text(orjson.dumps(hint))
            self.transport.write(b"".join(self.conn.data_to_send()))
        super().shutdown()
        self.drop_later()

    def drop_later(self) -> None:
        self.loop.call_later(FINAL, self.transport.abort)


def install() -> None:
    """Make this the protocol of every server that uvicorn starts in this process without naming another."""
    protocols = cast(dict[str, str], uvicorn.config.WS_PROTOCOLS)
    protocols["auto"] = f"{SocketProtocol.__module__}:{SocketProtocol.__qualname__}"


def abort(transmit: Any) -> None:
    """Drop the connection that an ASGI `send` writes to, where that can be seen."""
    protocol = getattr(transmit, "__self__", None)
    if isinstance(protocol, SocketProtocol):
        asyncio.get_running_loop().call_later(FINAL, protocol.transport.abort)
