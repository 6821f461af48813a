"""Policies on calls of providers: small wrappers around one stream of `Piece`s, put together in `HostedLLM`.

Each has the shape of `Policy` and holds what all generations of a replica share; what belongs to one generation travels
in its `Call`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from deployments.providers import Piece, ProviderFailure
from domain.generation import GenerationRequest, Why
from domain.message import Usage
from domain.model import Route

MAX_RETRY_AFTER = 20.0  # seconds that a turn waits because a provider asked for it


@dataclass(slots=True)
class Record:
    """One call of a provider while it goes on. Times: `started_at` in unix seconds, the others monotonic seconds.

    `status`: of its HTTP answer. `sent`: the provider has the request, as far as can be known. `received`: text and
    arguments of tools, as they came, in `chunks` pieces. `ref`: the answer's name at the provider. `lost`: another call
    answered in its place. `merged`: a later call of the trace took the same answer up again, and counts it.
    """

    route: Route
    request: GenerationRequest
    why: Why
    waited: float = 0.0
    started_at: float = field(default_factory=time.time)
    started: float = 0.0
    first: float | None = None
    ended: float | None = None
    error: str | None = "cancelled"
    status: int | None = None
    sent: bool = False
    usage: Usage | None = None
    received: list[str] = field(default_factory=list)
    chunks: int = 0
    finish_reason: str | None = None
    ref: str | None = None
    lost: bool = False
    merged: bool = False

    @property
    def spoke(self) -> bool:
        return self.first is not None


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked of whom. `trace` gets a record of each call of a provider that comes of it.

    `alternatives`: whether another model may answer instead. `resume`: the name and the cursor of a lost stream, and
    what it had said. `waited`: seconds, for a place at the provider. `began`: set once the provider is called.
    """

    route: Route
    request: GenerationRequest
    trace: list[Record]
    why: Why = "first"
    alternatives: bool = False
    resume: tuple[str, int | None, tuple[str, ...]] | None = None
    waited: float = 0.0
    began: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        return name_of(self.route)


class Policy(Protocol):
    """Streams the answer of a call; the contract is that of `Wire.stream`."""

    def stream(self, call: Call) -> AsyncGenerator[Piece, None]: ...


class QueueFull(ProviderFailure):
    """Too many calls wait for this provider. Not repeated at once: the queue was the waiting."""


class CircuitOpen(ProviderFailure):
    """The model failed too often, and is left alone for a while."""


def name_of(route: Route) -> str:
    """`provider/model`: what breakers and rate limits are kept by."""
    return f"{route.provider.name}/{route.id}"


def speaks(piece: Piece) -> bool:
    """Whether a caller can have seen something of the answer after this piece."""
    return bool(piece.text or piece.tool_calls)


def http_status(failure: ProviderFailure) -> int | None:
    """HTTP's status of the failure; None where it was none of HTTP's, as of a broken connection."""
    return failure.status


Heard = Callable[[int, Mapping[str, str]], None]
hearing: ContextVar[Heard | None] = ContextVar("hearing", default=None)


def observe(provider: Any, status: int, headers: Mapping[str, str]) -> None:
    """Tell the call under way in this task what its provider's answer begins with (for `HttpPool`)."""
    if (heard := hearing.get()) is not None:
        heard(status, headers)
