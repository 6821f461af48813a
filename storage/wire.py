"""Redis for what a request waits for: commands are written as they come, and not behind the answers to others.

`storage.redis.Pipeline` costs less where much is written; here a command is on its way within one turn of the loop.
"""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

from hiredis import Reader, pack_command
from redis.asyncio import Redis
from redis.exceptions import InvalidResponse, NoScriptError, RedisError, ResponseError

from domain.errors import JournalUnavailable

AT_ONCE = 65_536  # bytes
_NOTHING = object()


class Wire:
    """One connection; it is made by the first command, and again by the first after it broke. `timeout`: seconds for an
    answer, then all that wait for one fail."""

    def __init__(self, redis: Redis, timeout: float = 1.0) -> None:
        self._redis, self._timeout = redis, timeout
        self._connection: Any = redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        self._unsent: list[tuple[bytes, asyncio.Future[Any]]] = []
        self._sent: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._reader: asyncio.Task[None] | None = None
        self._open = self._flushing = False
        self._watch: asyncio.TimerHandle | None = None

    def send(self, *command: Any) -> asyncio.Future[Any]:
        """The answer. It is a `JournalUnavailable`, or Redis's own `ResponseError`, if it failed."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._unsent.append((pack_command(command), future))
        if self._reader is None:
            self._reader = loop.create_task(self._read(), name="redis")
        elif self._open and not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)
        return future

    async def close(self) -> None:
        """What still waits for its answer gets it, or fails by its time limit."""
        while self._sent or self._unsent:
            await asyncio.wait([future for _, future in (*self._sent, *self._unsent)])
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        await self._connection.disconnect()
        await self._redis.aclose()

    def _flush(self) -> None:
        self._flushing = False
        if not self._open or not self._unsent:
            return
        batch, self._unsent = self._unsent, []
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._sent.extend((now, future) for _, future in batch)
        self._connection._writer.write(b"".join([packed for packed, _ in batch]))
        if self._watch is None:
            self._watch = loop.call_later(self._timeout, self._late)

    def _late(self) -> None:
        self._watch = None
        if not self._sent:
            return
        loop = asyncio.get_running_loop()
        rest = self._sent[0][0] + self._timeout - loop.time()
        if rest > 0:
            self._watch = loop.call_later(rest, self._late)
        elif self._reader is not None:
            self._reader.cancel("late")

    async def _read(self) -> None:
        error: BaseException = TimeoutError()
        try:
            await asyncio.wait_for(self._connection.connect(), self._timeout)
            self._open = True
            self._flush()
            answers = Reader(protocolError=InvalidResponse, replyError=_refusal, notEnoughData=_NOTHING)
            while received := await self._connection._reader.read(AT_ONCE):
                answers.feed(received)
                while (answer := answers.gets()) is not _NOTHING:
                    self._answered(answer)
            raise ConnectionError("it closed the connection")
        except (TimeoutError, RedisError, OSError) as broken:
            error = broken
        finally:
            self._open = False
            with suppress(RedisError, OSError):
                await self._connection.disconnect(nowait=True)
            self._reader = None
            self._fail(JournalUnavailable(f"Redis cannot be reached ({type(error).__name__})"))

    def _answered(self, answer: Any) -> None:
        _, future = self._sent.popleft()
        if future.done():
            return
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _fail(self, error: Exception) -> None:
        waiting = [future for _, future in (*self._sent, *self._unsent)]
        self._sent.clear()
        self._unsent.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(error)


def _refusal(words: str) -> ResponseError:
    return NoScriptError(words) if words.startswith("NOSCRIPT") else ResponseError(words)
