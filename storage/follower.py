"""Follows the journals of many turns with one blocking read (`domain.ports.Follower`).

Each process has a stream of its own whose only use is to wake the blocking read when a turn is added.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from domain.errors import JournalUnavailable, Overloaded
from domain.events import TERMINAL, Event, Position
from storage.journal import NEXT, ROUND, SEALED, read_entry, stream_key
from storage.redis import Line, Pipeline

_EMPTY: list[Event] = []


@dataclass(eq=False, slots=True)
class _Reader:
    """One follower of one stream. `waiting` holds what it has not yet taken."""

    n: int
    waiting: deque[tuple[str, Event]] = field(default_factory=deque)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None

    def fail(self, error: Exception) -> None:
        self.failure = error
        self.ready.set()


@dataclass(eq=False, slots=True)
class _Feed:
    """A stream that is followed: where the blocking read stands, and who follows."""

    turn_id: str
    attempt: int
    last_id: str
    readers: set[_Reader] = field(default_factory=set)


class RedisFollower:
    """`idle`: seconds without an event until a reader is told so; `bound`: events that may wait for a slow reader."""

    def __init__(self, redis: Redis, blocking: Redis, idle: float = 5.0, bound: int = 5000) -> None:
        self._pipeline, self._line = Pipeline(redis), Line(blocking)
        self._idle, self._bound = idle, bound
        self._feeds: dict[str, _Feed] = {}
        self._wake = f"brain:wake:{uuid.uuid4().hex}"
        self._wake_id = "0"
        self._task: asyncio.Task[None] | None = None

    async def follow(
        self, tenant: str, turn_id: str, position: Position, kept: bool = True
    ) -> AsyncIterator[list[Event]]:
        attempt, n = position.attempt, position.n
        while True:
            ended = False
            key = stream_key(tenant, turn_id, attempt)
            reader = _Reader(n)
            known = self._join(key, turn_id, attempt, reader)
            try:
                await self._catch_up(key, turn_id, attempt, reader, known)
                async for batch in self._read(reader):
                    events: list[Event] = []
                    for kind, event in batch:
                        if kind == NEXT or (kind == SEALED and not kept):
                            ended = True
                        elif kind not in (SEALED, ROUND) and event.n > n:
                            n = event.n
                            events.append(event)
                    if events or not batch:
                        yield events
                    if not kept and ended:
                        return
                    if events and events[-1].type in TERMINAL:
                        return
                    if ended:
                        break
            finally:
                self._leave(key, reader)
            attempt, n = attempt + 1, 0

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._pipeline.close()
        await self._line.close()

    @property
    def followed(self) -> int:
        return len(self._feeds)

    def _join(self, key: str, turn_id: str, attempt: int, reader: _Reader) -> bool:
        """Whether the stream was followed already."""
        feed = self._feeds.get(key)
        if feed is not None:
            feed.readers.add(reader)
            return True
        self._feeds[key] = _Feed(turn_id, attempt, f"{reader.n}-0", {reader})
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return False

    def _leave(self, key: str, reader: _Reader) -> None:
        feed = self._feeds.get(key)
        if feed is not None:
            feed.readers.discard(reader)
            if not feed.readers:
                del self._feeds[key]

    async def _catch_up(self, key: str, turn_id: str, attempt: int, reader: _Reader, known: bool) -> None:
        """Wake the blocking read; for a stream that it has passed already, read what lies behind."""
        if known:
            entries = await self._pipeline.send("XRANGE", key, f"({reader.n}-0", "+")
            found = [read_entry(turn_id, attempt, entry) for entry in entries or ()]
            reader.waiting.extendleft(reversed(found))
            reader.ready.set()
        else:
            await self._pipeline.send("XADD", self._wake, "MAXLEN", "4", "*", "w", "1")

    async def _read(self, reader: _Reader) -> AsyncIterator[list[tuple[str, Event]]]:
        while True:
            try:
                async with asyncio.timeout(self._idle):
                    await reader.ready.wait()
            except TimeoutError:
                yield []
                continue
            reader.ready.clear()
            if reader.waiting:
                batch = list(reader.waiting)
                reader.waiting.clear()
                yield batch
            if reader.failure is not None:
                raise reader.failure

    async def _run(self) -> None:
        while self._feeds:
            keys, ids = [self._wake, *self._feeds], [self._wake_id, *(feed.last_id for feed in self._feeds.values())]
            try:
                (answer,) = await self._line.exchange([("XREAD", "BLOCK", 1000, "STREAMS", *keys, *ids)])
            except (TimeoutError, RedisError, OSError) as error:
                await self._line.drop()
                self._fail(JournalUnavailable(f"Redis cannot be reached ({type(error).__name__})"))
                return
            if isinstance(answer, Exception):
                self._fail(JournalUnavailable(f"Redis refuses to be read ({answer})"))
                return
            for name, entries in answer or ():
                key = name.decode()
                if key == self._wake:
                    self._wake_id = entries[-1][0].decode()
                    continue
                feed = self._feeds.get(key)
                if feed is not None:
                    self._deliver(feed, entries)

    def _deliver(self, feed: _Feed, entries: Any) -> None:
        feed.last_id = entries[-1][0].decode()
        found = [read_entry(feed.turn_id, feed.attempt, entry) for entry in entries]
        for reader in list(feed.readers):
            if len(reader.waiting) + len(found) > self._bound:
                feed.readers.discard(reader)
                reader.fail(Overloaded("the client reads its stream too slowly"))
                continue
            reader.waiting.extend(found)
            reader.ready.set()

    def _fail(self, error: Exception) -> None:
        for feed in self._feeds.values():
            for reader in feed.readers:
                reader.fail(error)
        self._feeds.clear()
