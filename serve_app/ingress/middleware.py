"""Around every request, as plain ASGI: its head, limits of its body, headers, its line in the log, the last resort."""

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domain.acting import TENANT
from domain.errors import BrainError, Unavailable
from serve_app.ingress import logs, metrics
from serve_app.ingress.context import TRACEPARENT, Visit
from serve_app.ingress.errors import Problem, answer_of, internal_error, refuse_upgrade
from serve_app.ingress.guards import added, always, shared
from serve_app.ingress.heads import Head
from serve_app.ingress.limiting import leave
from serve_app.ingress.parts import IngressSettings

_DRAIN = 8 * 1024 * 1024  # bytes of a body too large that are read and forgotten, so that its sender reads the answer
SOCKETS = "/api/v1/ws"
_METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"))


class Around:
    """`sockets`: what answers `/api/v1/ws`."""

    def __init__(self, app: ASGIApp, settings: IngressSettings, sockets: ASGIApp | None = None) -> None:
        self._settings, self._rules, self._sockets = settings, settings.edge, sockets
        self._app, self._always = shared(app, self._rules), always(self._rules)
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._open += 1
        try:
            await self._answered(scope, receive, send)
        finally:
            self._open -= 1

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _refused_socket(scope, self._settings):
            await refuse_upgrade(send, Problem(403, "pages of this origin may not open a socket here"))
        elif self._sockets is None or scope["path"] != SOCKETS:
            await refuse_upgrade(send, Problem(404, "there is no such route"))
        else:
            await self._sockets(scope, receive, send)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = Head(scope, self._rules)
        refusal: BrainError | None = head.refusal(scope, self._rules)
        if self._open > self._settings.max_requests:
            refusal = Unavailable("too many requests are being answered")
        visit = head.visit
        scope = {**scope, "headers": head.headers, "brain.visit": visit}
        extra = self._always
        if not (head.gives_id and self._settings.server_adds_request_id):
            extra = (*extra, (b"x-request-id", visit.request_id.encode()))
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*added(message.get("headers", ()), extra), *visit.limits]
            await send(message)

        body = _Body(receive, self._settings.max_body, self._rules.body_wait if head.has_body else None)
        token, acting = TRACEPARENT.set(visit.traceparent), TENANT.set(None)
        try:
            if refusal is None and head.length > self._settings.max_body:
                await body.drain(min(head.length, _DRAIN))
                refusal = _too_large(self._settings.max_body)
            if refusal is not None:
                await shared(answer_of(refusal), self._rules)(scope, receive, answer)
            else:
                await self._app(scope, body, answer)
        except ClientDisconnect:
            status = status or 499  # what nginx logs where the client left first
        except Problem as problem:  # of the body, where no route caught it
            if status:
                raise
            await shared(answer_of(problem), self._rules)(scope, receive, answer)
        except Exception as error:
            logs.unexpected(visit, error)
            if status:
                raise  # half an answer is out: the connection must break
            await shared(internal_error(), self._rules)(scope, receive, answer)
        finally:
            TRACEPARENT.reset(token)
            TENANT.reset(acting)
            if visit.admitted is not None:
                visit.admitted.leave()
            if visit.entry is not None:
                leave(scope["app"].state.parts, visit.entry)
            _record(scope, visit, status)


class _Body:
    """`receive`, up to `limit` bytes, which may take `wait` seconds to come; None: there are none to wait for."""

    def __init__(self, receive: Receive, limit: int, wait: float | None) -> None:
        self._receive, self._limit, self._wait, self._read = receive, limit, wait, 0
        self._until: float | None = None if wait is None else asyncio.get_running_loop().time() + wait

    async def __call__(self) -> Message:
        message = await self._next()
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            if self._read > self._limit:
                if message.get("more_body"):
                    await self.drain(_DRAIN)
                raise _too_large(self._limit)
        return message

    async def drain(self, size: int) -> None:
        while size > 0:
            message = await self._next()
            size -= len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body"):
                return

    async def _next(self) -> Message:
        if self._until is None:  # what comes now is that the client left, whenever that is
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            words = f"the body did not come within {self._wait:g} s"
            raise Problem(408, words, code="body_too_slow", headers={"connection": "close"}) from None
        if not message.get("more_body"):
            self._until = None
        return message


def _refused_socket(scope: Scope, settings: IngressSettings) -> bool:
    """Whether a page of another origin opens this WebSocket (browsers ask nobody first), or under another name."""
    headers = dict(scope["headers"])
    host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
    rules = settings.edge
    at_home = not origin or origin.partition("://")[2] == host
    return not rules.names(host) or not (at_home or origin in rules.origins)


def _too_large(limit: int) -> Problem:
    return Problem(413, f"the body is larger than {limit} bytes")


def _record(scope: Scope, visit: Visit, status: int) -> None:
    route = getattr(scope.get("route"), "path", "unmatched")
    method = scope["method"] if scope["method"] in _METHODS else "OTHER"
    seconds = visit.elapsed()
    metrics.REQUESTS.labels(method, route, str(status)).inc()
    metrics.LATENCY.labels(method, route).observe(seconds)
    logs.access(visit, method, route, status, seconds)
