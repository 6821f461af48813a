"""The mailbox of one conversation: one consumer does one piece of work at a time.

It runs only while something waits, so that a quiet conversation costs no task. When it is closed, whoever waits gets an
error; nobody hangs.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from actors.parts import Parts
from domain.errors import BrainError, Fenced, NotFound, Overloaded, Retryable, Unavailable

log = logging.getLogger("brain.conversation")
T = TypeVar("T")
Work = Callable[[], Awaitable[Any]]
LONGEST = 30.0  # seconds of one piece of work: the calls in it have time limits of their own, so this is a defect
AGAIN = 0.5  # seconds until work that met an unreachable database is tried again


class Mailbox:
    """`before` is awaited ahead of each piece of work; `lost` is told of an error after which nothing can be done here:
    another host owns the conversation, or it is gone."""

    __slots__ = ("_before", "_consumer", "_lost", "_parts", "_waiting", "closed", "touched")

    def __init__(self, parts: Parts, before: Work, lost: Callable[[BrainError], None]) -> None:
        self._parts, self._before, self._lost = parts, before, lost
        self._waiting: deque[tuple[Work, asyncio.Future[Any]]] = deque()
        self._consumer: asyncio.Task[None] | None = None
        self.closed: BrainError | None = None
        self.touched = time.monotonic()

    @property
    def idle(self) -> bool:
        return not self._waiting and (self._consumer is None or self._consumer.done())

    def do(self, work: Callable[[], Awaitable[T]]) -> "asyncio.Future[T]":
        """The result of `work`, once its turn has come. Raises `Overloaded` where too much waits."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self.closed is not None:
            future.set_exception(self.closed)
        elif len(self._waiting) >= self._parts.limits.mailbox:
            future.set_exception(Overloaded("too many messages wait for this conversation"))
        else:
            self.touched = time.monotonic()
            self._waiting.append((work, future))
            self._parts.waiting += 1
            if self._consumer is None or self._consumer.done():
                self._consumer = asyncio.create_task(self._consume())
        return future

    async def until_done(self, work: Callable[[], Awaitable[T]]) -> T:
        """As `do`, again while the database is away. Raises `Fenced` when another host took over."""
        while True:
            try:
                return await self.do(work)
            except Fenced:
                raise
            except Retryable:
                await asyncio.sleep(AGAIN)

    def later(self, work: Work) -> "asyncio.Task[None]":
        """Have `work` done once the database is back."""

        async def wait() -> None:
            await asyncio.sleep(AGAIN)
            with suppress(Fenced, NotFound):
                await self.until_done(work)

        return asyncio.create_task(wait())

    def close(self, error: BrainError) -> None:
        """Take nothing more; whoever waits gets `error`."""
        self.closed = error
        while self._waiting:
            _, future = self._waiting.popleft()
            self._parts.waiting -= 1
            _settle(future, error)

    async def _consume(self) -> None:
        while self._waiting and self.closed is None:
            work, future = self._waiting.popleft()
            self._parts.waiting -= 1
            limit = asyncio.timeout(LONGEST)
            try:
                async with limit:
                    await self._before()
                    result = await work()
            except BrainError as error:
                _settle(future, error)
                if isinstance(error, Fenced) or type(error) is NotFound:
                    self._lost(error)
            except TimeoutError as error:
                _settle(future, Unavailable("the conversation's host stands still") if limit.expired() else error)
                if limit.expired():
                    log.error("a conversation stood still for %.0f s: it is taken up anew", LONGEST)
                    self._lost(Fenced("the conversation stood still"))
            except Exception as error:  # a defect: the caller learns of it, the conversation goes on
                _settle(future, error)
            else:
                if not future.done():
                    future.set_result(result)


def _settle(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
