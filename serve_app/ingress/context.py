"""What is known of the request at hand: for the log line, for metrics, and for the calls it makes."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from serve_app.edge_rules import counted_as
from serve_app.ingress.admission import Admitted
from serve_app.ingress.limiter import Entry, Headers

TRACEPARENT: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The caller's trace context (W3C Trace Context), to be passed on by whoever calls another service."""


@dataclass(slots=True)
class Visit:
    """One request. `began` is on the clock of `time.perf_counter`. `entry`: what it took of its caller's limits, which
    `limits` tells. `client`: the address that it comes from, as far as proxies that the settings trust tell."""

    request_id: str
    began: float
    traceparent: str | None = None
    tenant: str | None = None
    caller: str | None = None
    conversation: str | None = None
    turn: str | None = None
    admitted: Admitted | None = None
    entry: Entry | None = None
    limits: Headers = field(default_factory=list)
    client: str = ""

    @property
    def network(self) -> str:
        """What attempts from that address are counted by."""
        return counted_as(self.client)

    def elapsed(self) -> float:
        return perf_counter() - self.began


def visit_of(scope: Any) -> Visit:
    """The visit that the middleware put into the ASGI scope."""
    visit: Visit = scope["brain.visit"]
    return visit
