"""The route `/api/v1/ws`: from the upgrade to the close. A credential never stands in the address, nor in an answer."""

import asyncio
import time
from typing import Any
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from domain.errors import BrainError, Overloaded, Retryable, Unavailable
from serve_app.ingress import metrics
from serve_app.ingress.auth import unauthenticated
from serve_app.ingress.errors import refuse_upgrade
from serve_app.ingress.parts import Parts
from serve_app.ingress.socket import frames, wire
from serve_app.ingress.socket.connection import AGAIN, UNAUTHORIZED, UNSUPPORTED, Connection
from serve_app.ingress.socket.operations import Operations, welcome
from serve_app.ingress.socket.sockets import Sockets

SPOKEN = "brain.v1"
BEARER, TICKET = "bearer.", "ticket."  # subprotocols that carry a credential
USUAL = frozenset((1000, 1001, 1005, 1006, 1009, 1011, 1012))  # codes of a client, which may send any
AT_ONCE = 32  # frames of one socket that are worked on at the same time
ASKS = frozenset(("read", "presence"))  # for which a store is asked, and which take of no other limit
IN_ORDER = frozenset(("send", "subscribe", "unsubscribe"))  # of one conversation, as they came


class Endpoint:
    """An ASGI application for WebSocket scopes."""

    def __init__(self, app: Any, parts: Parts, sockets: Sockets) -> None:
        self._sockets = sockets
        self._operations = Operations(app, parts, sockets)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        socket = Connection(send, self._sockets.name)
        try:
            await self._admit(scope, socket)
        except BrainError as problem:
            await refuse_upgrade(send, problem)
            return
        offered = scope.get("subprotocols", ())
        await send({"type": "websocket.accept", "subprotocol": SPOKEN if SPOKEN in offered else None})
        self._sockets.enter(socket)
        try:
            if socket.caller is None or self._sockets.named(socket):
                scope.clear()
                await self._listen(socket, receive)
        finally:
            await self._operations.left(socket)

    async def _admit(self, scope: Scope, socket: Connection) -> None:
        """Raises `Problem` 401, `Overloaded` and `Unavailable`. Without a credential the first frame must bring one."""
        if self._sockets.draining:
            raise Unavailable("this replica stops: connect again")
        if self._sockets.full:
            raise Overloaded("as many sockets are open here as may be")
        credential = await self._credential(scope)
        if credential is not None:
            await self._operations.named(socket, credential)
        elif len(self._sockets.unnamed) >= self._sockets.limits.unnamed:
            raise Overloaded("too many sockets have not said yet who speaks")

    async def _credential(self, scope: Scope) -> str | None:
        for offered in scope.get("subprotocols", ()):
            if offered.startswith(BEARER):
                return str(offered.removeprefix(BEARER))
            if offered.startswith(TICKET):
                return await self._of_ticket(offered.removeprefix(TICKET))
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        if "ticket" in query:
            return await self._of_ticket(query["ticket"][0])
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        scheme, _, credential = given.partition(" ")
        if given and (scheme.lower() != "bearer" or not credential.strip()):
            raise unauthenticated("send your API key as `Authorization: Bearer <key>`")
        return credential.strip() or None

    async def _of_ticket(self, ticket: str) -> str:
        credential = await self._sockets.tickets.take(ticket)
        if credential is None:
            raise unauthenticated("this ticket does not count, or no more: each is for one connection, soon")
        return credential

    async def _listen(self, socket: Connection, receive: Receive) -> None:
        last: dict[str, asyncio.Task[None]] = {}
        obeying: set[asyncio.Task[None]] = set()
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                if socket.closing is None:
                    code = message.get("code", 1006)
                    metrics.SOCKET_CLOSES.labels(str(code) if code in USUAL else "other").inc()
                return
            if socket.closing is not None:
                continue
            if message.get("text") is None:
                socket.close(UNSUPPORTED, "frames are text")
                continue
            await self._heard(socket, message["text"], last, obeying)

    async def _heard(
        self,
        socket: Connection,
        text: str,
        last: dict[str, "asyncio.Task[None]"],
        obeying: "set[asyncio.Task[None]]",
    ) -> None:
        metrics.SOCKET_FRAMES.labels("in").inc()
        try:
            op, frame = frames.read(text)
        except frames.Misread as wrong:
            socket.allows(time.monotonic())
            socket.push(frames.error(wrong.problem, wrong.ref))
            return
        if not socket.allows(time.monotonic(), op in ASKS):
            socket.push(frames.error(Overloaded("frames come too fast"), frame.ref))
        elif socket.caller is None:
            await self._introduced(socket, op, frame)
        elif op == "ping":
            socket.push(frames.text("pong", **({} if frame.ref is None else {"ref": frame.ref})))
        else:
            await self._spawned(socket, op, frame, len(text), last, obeying)

    async def _introduced(self, socket: Connection, op: str, frame: frames.Frame) -> None:
        if not isinstance(frame, frames.AuthFrame):
            problem: BrainError = unauthenticated("the first frame must say who speaks: {op: auth, token}")
        else:
            try:
                await self._operations.named(socket, frame.token)
            except BrainError as refused:
                problem = refused
            else:
                if self._sockets.named(socket):
                    socket.push(welcome(socket, frame.ref))
                return
        socket.push(frames.error(problem, frame.ref))
        socket.close(AGAIN if isinstance(problem, Retryable) else UNAUTHORIZED, str(problem))

    async def _spawned(
        self,
        socket: Connection,
        op: str,
        frame: frames.Frame,
        size: int,
        last: dict[str, "asyncio.Task[None]"],
        obeying: "set[asyncio.Task[None]]",
    ) -> None:
        place = getattr(frame, "conversation_id", None) if op in IN_ORDER else None
        before = last.get(place) if place else None

        async def work() -> None:
            if before is not None:
                await asyncio.wait((before,))
            await self._operations.obey(socket, op, frame, size)

        task = socket.spawn(work())
        if place:
            last[place] = task
            task.add_done_callback(lambda done: last.get(place) is done and last.pop(place))
        obeying.add(task)
        task.add_done_callback(obeying.discard)
        if len(obeying) >= AT_ONCE:
            await asyncio.wait(obeying, return_when=asyncio.FIRST_COMPLETED)


def sockets_of(app: Any, parts: Parts) -> ASGIApp | None:
    """What answers WebSockets, where this replica has any. Around it stand no layers: each costs every open socket."""
    if parts.sockets is None:
        return None
    wire.install()
    return Endpoint(app, parts, parts.sockets)
