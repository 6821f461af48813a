"""The head of a request, read in one pass: what it says, what must not reach a route, and whether it is refused."""

import re
from collections.abc import Iterable
from time import perf_counter
from typing import Any

from domain.ids import new_id
from serve_app.edge_rules import EdgeRules
from serve_app.ingress.context import Visit
from serve_app.ingress.errors import Problem

SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_HOP_BY_HOP = frozenset(  # between two neighbours on the way alone (RFC 9110, section 7.6.1)
    (b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"upgrade")
)
_PLAIN = frozenset((b"keep-alive", b"close", b"Keep-Alive"))
_KEPT = frozenset((b"authorization", b"host", b"content-length", b"content-type"))  # `connection` names none of these
_DIGITS = 18  # of a length: one with more is too long all the same
_FORWARDED = frozenset((b"forwarded", b"x-real-ip"))
_HEEDED = (
    frozenset((b"connection", b"content-length", b"host", b"traceparent", b"transfer-encoding", b"x-request-id"))
    | frozenset((b"x-forwarded-for",))
    | _FORWARDED
    | _HOP_BY_HOP
)
_ANY_HOST = frozenset(("/health", "/health/live", "/health/ready"))  # load balancers ask these by address

Headers = list[tuple[bytes, bytes]]


class Head:
    """`length`: bytes of the body that the head announces; `has_body`: whether it announces one, of whatever length.

    `headers`: without those of the neighbour, and without word of a client that the neighbour may not speak for.
    `gives_id`: whether the client sent an `x-request-id`.
    """

    __slots__ = ("_host", "_hosts", "_size", "gives_id", "has_body", "headers", "length", "visit")

    def __init__(self, scope: Any, rules: EdgeRules) -> None:
        given: Headers = scope["headers"]
        request_id, traceparent, self._host = b"", None, b""
        self.length, self.has_body, self.gives_id, self._hosts, self._size = 0, False, False, 0, 0
        named: bytes | None = None
        foreign, forwarded = False, []
        for name, value in given:
            self._size += len(name) + len(value)
            if name not in _HEEDED:
                foreign = foreign or name.startswith(b"x-forwarded-")
            elif name == b"host":
                self._host, self._hosts = value, self._hosts + 1
            elif name == b"content-length":
                self.length, self.has_body = int(value[:_DIGITS]) if value.isdigit() else 0, True
            elif name == b"transfer-encoding":
                self.has_body = True
            elif name == b"x-request-id":
                request_id, self.gives_id = value, True
            elif name == b"traceparent" and _TRACEPARENT.fullmatch(value):
                traceparent = value.decode()
            elif name == b"connection":
                if value not in _PLAIN:
                    named = value if named is None else named + b"," + value
            elif name == b"x-forwarded-for":
                forwarded.append(value.decode("latin-1"))
                foreign = True
            elif name in _FORWARDED:
                foreign = True
            elif name in _HOP_BY_HOP:
                named = named or b""
        peer = (scope.get("client") or ("",))[0]
        foreign = foreign and not rules.proxies.hold(peer)
        self.headers = given if named is None and not foreign else list(_kept(given, named or b"", foreign))
        sane = SANE_ID.fullmatch(request_id) is not None
        self.visit = Visit(request_id.decode() if sane else new_id("req"), perf_counter(), traceparent)
        self.visit.client = rules.client(peer, forwarded) if forwarded else peer

    def refusal(self, scope: Any, rules: EdgeRules) -> Problem | None:
        """Why the request is answered without a look at what it asks."""
        if len(scope["headers"]) > rules.head_fields or self._size > rules.head_bytes:
            limits = f"{rules.head_fields} fields or {rules.head_bytes} bytes"
            return _closing(431, f"the request's head has more than {limits}", "head_too_large")
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > rules.target_bytes:
            return _closing(414, f"the address has more than {rules.target_bytes} bytes", "uri_too_long")
        if self._hosts > 1:
            return _closing(400, "the request names more than one host", "invalid_host")
        if rules.hosts and scope["path"] not in _ANY_HOST and not rules.names(self._host.decode("latin-1")):
            return _closing(400, "the service does not answer under this host name", "invalid_host")
        return None


def _kept(headers: Headers, named: bytes, without_forwarded: bool) -> Iterable[tuple[bytes, bytes]]:
    dropped = ({one.strip() for one in named.lower().split(b",")} | _HOP_BY_HOP) - _KEPT
    for name, value in headers:
        if name in dropped and name != b"connection":
            continue
        if without_forwarded and (name.startswith(b"x-forwarded-") or name in _FORWARDED):
            continue
        yield name, value


def _closing(status: int, message: str, code: str) -> Problem:
    return Problem(status, message, code=code, headers={"connection": "close"})
