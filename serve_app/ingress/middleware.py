"""Around every request, as plain ASGI: its id, the limit of its body, headers, its line in the log, the last resort."""

import re
from time import perf_counter

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domain.acting import TENANT
from domain.ids import new_id
from serve_app.ingress import logs, metrics
from serve_app.ingress.context import TRACEPARENT, Visit
from serve_app.ingress.errors import Problem, answer_of, internal_error
from serve_app.ingress.limiting import leave
from serve_app.ingress.parts import IngressSettings

SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_DRAIN = 8 * 1024 * 1024  # bytes of a body too large that are read and forgotten, so that its sender reads the answer
_METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"))


class Around:
    def __init__(self, app: ASGIApp, settings: IngressSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit, length, given = _visit(scope["headers"])
        scope["brain.visit"] = visit
        extra = [(b"x-content-type-options", b"nosniff")]
        if not (given and self._settings.server_adds_request_id):
            extra.append((b"x-request-id", visit.request_id.encode()))
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *extra, *visit.limits]
            await send(message)

        body = _Body(receive, self._settings.max_body)
        token, acting = TRACEPARENT.set(visit.traceparent), TENANT.set(None)
        try:
            if length > self._settings.max_body:
                await body.drain(min(length, _DRAIN))
                await answer_of(_problem(self._settings.max_body))(scope, receive, answer)
            else:
                await self._app(scope, body, answer)
        except ClientDisconnect:
            status = status or 499  # what nginx logs where the client left first
        except Exception as error:
            logs.unexpected(visit, error)
            if status:
                raise  # half an answer is out: the connection must break
            await internal_error()(scope, receive, answer)
        finally:
            TRACEPARENT.reset(token)
            TENANT.reset(acting)
            if visit.admitted is not None:
                visit.admitted.leave()
            if visit.entry is not None:
                leave(scope["app"].state.parts, visit.entry)
            _record(scope, visit, status)


class _Body:
    """`receive`, up to `limit` bytes."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit, self._read = receive, limit, 0

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            if self._read > self._limit:
                if message.get("more_body"):
                    await self.drain(_DRAIN)
                raise _problem(self._limit)
        return message

    async def drain(self, size: int) -> None:
        while size > 0:
            message = await self._receive()
            size -= len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body"):
                return


def _visit(headers: list[tuple[bytes, bytes]]) -> tuple[Visit, int, bool]:
    request_id, traceparent, length, given = b"", None, 0, False
    for name, value in headers:
        if name == b"x-request-id":
            request_id, given = value, True
        elif name == b"traceparent" and _TRACEPARENT.fullmatch(value):
            traceparent = value.decode()
        elif name == b"content-length" and value.isdigit():
            length = int(value)
    sane = SANE_ID.fullmatch(request_id) is not None
    return Visit(request_id.decode() if sane else new_id("req"), perf_counter(), traceparent), length, given


def _problem(limit: int) -> Problem:
    return Problem(413, f"the body is larger than {limit} bytes")


def _record(scope: Scope, visit: Visit, status: int) -> None:
    route = getattr(scope.get("route"), "path", "unmatched")
    method = scope["method"] if scope["method"] in _METHODS else "OTHER"
    seconds = visit.elapsed()
    metrics.REQUESTS.labels(method, route, str(status)).inc()
    metrics.LATENCY.labels(method, route).observe(seconds)
    logs.access(visit, method, route, status, seconds)
