"""Ingress replicas with sockets, and plain clients of them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from domain.events import ACCEPTED, Event
from serve_app.ingress.parts import IngressSettings
from serve_app.ingress.socket.sockets import SocketLimits, Sockets, sockets
from storage.broadcast import Told
from storage.redis import open_redis
from tests.unit.ingress_world import KEY, World, world

DEADLINE = 10.0


class Client:
    """One WebSocket, frame by frame."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def tell(self, op: str, **fields: Any) -> None:
        await self.connection.send(json.dumps({"op": op, **fields}))

    async def hear(self) -> Any:
        async with asyncio.timeout(DEADLINE):
            return json.loads(await self.connection.recv())

    async def ask(self, op: str, **fields: Any) -> Any:
        """The answer of a frame; other frames that come before it are lost."""
        await self.tell(op, ref="asked", **fields)
        while (frame := await self.hear()).get("ref") != "asked":
            continue
        return frame

    async def all_of(self, *ops: str) -> dict[str, dict[str, Any]]:
        """The first frame of each of these."""
        found: dict[str, dict[str, Any]] = {}
        while not found.keys() >= set(ops):
            frame = await self.hear()
            found.setdefault(frame["op"], frame)
        return found

    async def until(self, op: str, **fields: Any) -> Any:
        """The first frame like this; others are lost."""
        while (frame := await self.hear())["op"] != op or not fields.items() <= frame.items():
            continue
        return frame

    async def turn(self) -> list[Any]:
        """Frames of events up to the end of a turn."""
        found = [await self.until("event")]
        while found[-1]["event"]["type"] not in ("turn.completed", "turn.failed", "turn.cancelled"):
            found.append(await self.hear())
        return found

    async def closed(self) -> tuple[int, str]:
        async with asyncio.timeout(DEADLINE):
            await self.connection.wait_closed()
        assert self.connection.close_code is not None
        return self.connection.close_code, self.connection.close_reason or ""


def address(made: World) -> str:
    return made.url.replace("http", "ws", 1) + "/api/v1/ws"


@asynccontextmanager
async def client(made: World, key: str | None = KEY, path: str = "", **options: Any) -> AsyncIterator[Client]:
    """Named by a subprotocol; None: nobody is named."""
    offered = [] if key is None else ["brain.v1", f"bearer.{key}"]
    options.setdefault("subprotocols", offered or None)
    async with connect(address(made) + path, compression=None, open_timeout=DEADLINE, **options) as connection:
        yield Client(connection)


@asynccontextmanager
async def replica(
    database_url: str, redis_url: str, tenant: str, limits: SocketLimits | None = None, **settings: Any
) -> AsyncIterator[tuple[World, Sockets]]:
    opened = sockets(open_redis(redis_url), open_redis(redis_url, timeout=10), limits)
    ready = IngressSettings(poll=0.01, **settings)
    async with world(database_url, tenant, ready, administered=True, sockets=opened) as made:
        opened.start(made.parts.callers, made.parts.watch)
        announces(made, opened)
        yield made, opened
        await opened.close()


def announces(made: World, opened: Sockets) -> None:
    """Let the journal that lives in the test tell of turns that began, as that of a service does."""
    append = made.journal.append

    async def announcing(*events: Event) -> None:
        await append(*events)
        for event in events:
            if event.type == ACCEPTED:
                conversation = event.data["user_message"]["conversation_id"]
                opened.broadcast.tell(Told(made.tenant, conversation, "turn", "", event.turn_id))

    made.journal.append = announcing  # type: ignore[method-assign]


@asynccontextmanager
async def replicas(database_url: str, redis_url: str, tenant: str, count: int = 2) -> AsyncIterator[list[World]]:
    """Which share their hosts and their journal, as replicas of one service do."""
    async with AsyncExitStack() as stack:
        made = [(await stack.enter_async_context(replica(database_url, redis_url, tenant)))[0] for _ in range(count)]
        for one in made[1:]:
            one.parts.hosts, one.parts.follower = made[0].hosts, made[0].journal
        yield made
