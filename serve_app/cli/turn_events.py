"""A turn's events over a connection that may break: each event once, in order, until the terminal one.

An end without a terminal event means "reconnect": `GET /turns/{id}/events` goes on after the last event that was read.
"""

import asyncio
import os
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import aiohttp
import orjson

from deployments.providers.sse import EventParser
from domain.events import TERMINAL, Event
from serve_app.embedded.refusal import Refusal

BROKEN = (aiohttp.ClientError, TimeoutError, OSError)
BUSY = frozenset({429, 502, 503, 504})  # the service, or the balancer before it, may answer soon
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds

Sleep = Callable[[float], Awaitable[None]]
Open = Callable[[Event | None], Awaitable[aiohttp.ClientResponse]]
"""Asks for a turn's events: all of them, or those after an event. Raises `Busy`, `Refusal`, or one of BROKEN."""


class Busy(Exception):
    """The service does not answer now. `retry_after`: seconds that it asked for."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason, retry_after)
        self.reason, self.retry_after = reason, retry_after


class Patience:
    """Pauses between tries; they grow until something succeeds.

    `tell` hears of the first failure after a success, once. When the pauses since then add up to `seconds`, `failed`
    raises `Refusal`.
    """

    def __init__(self, tell: Callable[[str], None], sleep: Sleep = asyncio.sleep, seconds: float = 60.0) -> None:
        self._tell, self._sleep, self._seconds = tell, sleep, seconds
        self._tries, self._paused = 0, 0.0

    def succeeded(self) -> None:
        self._tries, self._paused = 0, 0.0

    async def failed(self, reason: str, at_least: float = 0.0) -> None:
        """Wait before the next try. `at_least` in seconds."""
        if not self._tries:
            self._tell(f"{reason}: trying again")
        pause = max(at_least, random.uniform(0.5, 1) * min(FIRST_PAUSE * 2**self._tries, LONGEST_PAUSE))
        self._tries, self._paused = self._tries + 1, self._paused + pause
        if self._paused > self._seconds:
            raise Refusal(f"{reason}; tried for {self._seconds:.0f} s (what was accepted is answered all the same)")
        await self._sleep(pause)


async def follow(open_stream: Open, patience: Patience) -> AsyncGenerator[Event, None]:
    """The turn's events. Close it (`contextlib.aclosing`) to leave; the turn goes on."""
    last: Event | None = None
    while True:
        wait = 0.0
        try:
            response = await open_stream(last)
            try:
                async for event in read(response):
                    if last is not None and (event.attempt, event.n) <= (last.attempt, last.n):
                        continue
                    last = event
                    patience.succeeded()
                    yield event
                    if event.type in TERMINAL:
                        return
            finally:
                response.close()
            reason = "the connection ended"
        except Busy as error:
            reason, wait = error.reason, error.retry_after
        except BROKEN as error:
            reason = f"the connection broke ({reason_of(error)})"
        await patience.failed(reason, wait)


async def read(response: aiohttp.ClientResponse) -> AsyncGenerator[Event, None]:
    """The events of one response, up to its end or its break."""
    parser = EventParser()
    async for chunk in response.content.iter_any():
        for data in parser.feed(chunk):
            yield event_of(orjson.loads(data))


def event_of(body: dict[str, Any]) -> Event:
    data = dict(body)
    kind, turn_id, attempt, n = (data.pop(name) for name in ("type", "turn_id", "attempt", "n"))
    return Event(turn_id, attempt, n, kind, data)


def reason_of(error: BaseException) -> str:
    """What broke a connection, in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower() if error.errno > 0 else str(error.strerror).lower()
    return "it was cut"
