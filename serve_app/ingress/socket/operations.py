"""What a client's frames ask for, answered as the routes answer that do the same."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from domain.errors import BrainError
from domain.ids import new_id
from domain.tenant import Caller
from serve_app.ingress import logs, metrics
from serve_app.ingress.auth import authenticated
from serve_app.ingress.context import Visit
from serve_app.ingress.errors import Problem
from serve_app.ingress.parts import Parts
from serve_app.ingress.socket import frames
from serve_app.ingress.socket.asked import Asked, request_of
from serve_app.ingress.socket.company import Company
from serve_app.ingress.socket.connection import UNAUTHORIZED, Connection
from serve_app.ingress.socket.following import settle
from serve_app.ingress.socket.sockets import Sockets
from serve_app.ingress.socket.turns import Turns

LOGGED = frozenset(("send", "cancel"))


class Operations:
    """Over the parts of one replica; `app` is what requests belong to."""

    def __init__(self, app: Any, parts: Parts, sockets: Sockets) -> None:
        self._app, self._parts, self._sockets = app, parts, sockets
        self._company, turns = Company(parts, sockets), Turns(parts, sockets)
        self._obeyed: dict[str, Callable[[Asked, Any], Awaitable[None]]] = {
            "send": turns.send,
            "subscribe": turns.subscribe,
            "unsubscribe": turns.unsubscribe,
            "cancel": turns.cancel,
            "typing": self._company.typing,
            "read": self._company.read,
            "presence": self._company.presence,
            "auth": self._auth,
        }

    async def named(self, socket: Connection, credential: str) -> Caller:
        """Who speaks on this socket from now on. Raises `Problem` 401, and `Unavailable`."""
        visit = Visit(new_id("req"), time.perf_counter())
        caller = await authenticated(request_of(self._app, credential, visit, {}))
        socket.caller, socket.credential = caller, credential
        return caller

    async def obey(self, socket: Connection, op: str, frame: frames.Frame, size: int) -> None:
        """Do what the frame asks, and answer it."""
        visit = Visit(new_id("req"), time.perf_counter())
        path = {name: value for name in ("conversation_id", "turn_id") if (value := getattr(frame, name, None))}
        key = getattr(frame, "idempotency_key", None)
        asked = Asked(socket, request_of(self._app, socket.credential, visit, path, key, size), visit)
        status = 200
        try:
            await self._obeyed[op](asked, frame)
        except BrainError as problem:
            status = problem.status
            socket.push(frames.error(problem, frame.ref))
            if status == 401:
                socket.close(UNAUTHORIZED, str(problem))
        except Exception as error:
            status = 500
            logs.unexpected(visit, error)
            socket.push(frames.error(Problem(500, "something went wrong in the service"), frame.ref))
        finally:
            settle(self._parts, visit)
            metrics.REQUESTS.labels("WS", op, str(status)).inc()
            if op in LOGGED:
                logs.access(visit, "WS", op, status, visit.elapsed())

    async def left(self, socket: Connection) -> None:
        """The connection has ended."""
        for conversation in list(socket.typing or ()):
            self._company.stop_typing(socket, conversation)
        socket.stop()
        await self._sockets.leave(socket)

    async def _auth(self, asked: Asked, frame: frames.AuthFrame) -> None:
        """Another credential of the same caller, before the one that counts now expires."""
        socket, before = asked.socket, asked.socket.caller
        credential = socket.credential
        caller = await self.named(socket, frame.token)
        if before is not None and (before.tenant, before.user, before.permissions) != (
            caller.tenant,
            caller.user,
            caller.permissions,
        ):  # what it follows was let in by the one before
            socket.caller, socket.credential = before, credential
            raise Problem(403, "this is another caller's, or may do other things: open another socket for it", "token")
        socket.push(welcome(socket, frame.ref))


def welcome(socket: Connection, ref: frames.Reference) -> str:
    caller = socket.caller
    assert caller is not None
    return frames.text("ack", ref=ref, user_id=caller.user, tenant_id=caller.tenant, expires_at=caller.expires_at)
