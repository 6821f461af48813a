"""Follows many streams of events with one blocking read: what `storage.follower` is for journals.

A stream of the process's own wakes the read when another stream is added.
"""

import asyncio
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from domain.cloud_events import CloudEvent
from domain.errors import Overloaded, Unavailable
from storage.event_streams import read_entry
from storage.redis import Line, Pipeline

Entry = tuple[str, int, CloudEvent]
PAGE = 200


@dataclass(eq=False, slots=True)
class Reader:
    """What comes behind `last`, an entry's id. `waiting` holds what was not yet taken."""

    key: str
    last: str
    waiting: deque[Entry] = field(default_factory=deque)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None

    async def take(self) -> list[Entry]:
        """At least one entry behind the last one. Raises `Unavailable`: join again; `Overloaded`: too slow."""
        while True:
            await self.ready.wait()
            if self.failure is not None and not self.waiting:
                raise self.failure
            found: list[Entry] = []
            for entry in self.waiting:
                if later(entry[0], self.last):
                    found.append(entry)
                    self.last = entry[0]
            self.waiting.clear()
            if self.failure is None:
                self.ready.clear()
            if found:
                return found


class EventTail:
    """`bound`: entries that may wait for a slow reader."""

    def __init__(self, redis: Redis, blocking: Redis, bound: int = 2000) -> None:
        self._pipeline, self._line, self._bound = Pipeline(redis), Line(blocking), bound
        self._readers: dict[str, set[Reader]] = {}
        self._stands: dict[str, str] = {}
        self._wake, self._wake_id = f"brain:wake:{uuid.uuid4().hex}", "0"
        self._task: asyncio.Task[None] | None = None

    async def last(self, key: str) -> str:
        """The id of the stream's newest entry, which need not be there any more; `0-0` where there is no stream."""
        found = await self._pipeline.send("XREVRANGE", key, "+", "-", "COUNT", "1")
        return found[0][0].decode() if found else "0-0"

    async def first(self, key: str) -> str | None:
        found = await self._pipeline.send("XRANGE", key, "-", "+", "COUNT", "1")
        return found[0][0].decode() if found else None

    async def has(self, key: str, id: str) -> bool:
        return bool(await self._pipeline.send("XRANGE", key, id, id))

    async def page(self, key: str, after: str) -> list[Entry]:
        """Up to `PAGE` entries behind this one."""
        found = await self._pipeline.send("XRANGE", key, f"({after}", "+", "COUNT", PAGE)
        return [read_entry(entry) for entry in found or ()]

    async def join(self, key: str, after: str) -> Reader:
        """Follow what comes behind `after`, which should be near the end."""
        reader = Reader(key, after)
        readers = self._readers.setdefault(key, set())
        readers.add(reader)
        self._stands.setdefault(key, after)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            if len(readers) == 1:
                await self._pipeline.send("XADD", self._wake, "MAXLEN", "4", "*", "w", "1")
                await self._pipeline.send("EXPIRE", self._wake, 3600)
            else:  # the read has passed this place
                missed: list[Entry] = []
                while len(page := await self.page(key, after)) == PAGE:
                    missed += page
                    after = page[-1][0]
                reader.waiting.extendleft(reversed(missed + page))
                reader.ready.set()
        except BaseException:
            self.leave(reader)
            raise
        return reader

    def leave(self, reader: Reader) -> None:
        readers = self._readers.get(reader.key)
        if readers is not None:
            readers.discard(reader)
            if not readers:
                del self._readers[reader.key]
                self._stands.pop(reader.key, None)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._pipeline.close()
        await self._line.close()

    async def _run(self) -> None:
        while self._readers:
            keys, ids = [self._wake, *self._stands], [self._wake_id, *self._stands.values()]
            try:
                (answer,) = await self._line.exchange([("XREAD", "COUNT", 500, "BLOCK", 1000, "STREAMS", *keys, *ids)])
            except (TimeoutError, RedisError, OSError) as error:
                await self._line.drop()
                self._fail(Unavailable(f"Redis cannot be reached ({type(error).__name__})"))
                return
            if isinstance(answer, Exception):
                self._fail(Unavailable(f"Redis refuses to be read ({answer})"))
                return
            for name, entries in answer or ():
                self._deliver(name.decode(), entries)

    def _deliver(self, key: str, entries: Any) -> None:
        if key == self._wake:
            self._wake_id = entries[-1][0].decode()
            return
        readers = self._readers.get(key)
        if not readers:
            return
        self._stands[key] = entries[-1][0].decode()
        found = [read_entry(entry) for entry in entries]
        for reader in list(readers):
            if len(reader.waiting) + len(found) > self._bound:
                reader.failure = Overloaded("the client reads its events too slowly")
                self.leave(reader)
            else:
                reader.waiting.extend(found)
            reader.ready.set()

    def _fail(self, error: Exception) -> None:
        for readers in self._readers.values():
            for reader in readers:
                reader.failure = error
                reader.ready.set()
        self._readers.clear()
        self._stands.clear()


def later(one: str, other: str) -> bool:
    """Whether an entry's id stands behind another's."""
    return _numbers(one) > _numbers(other)


def _numbers(id: str) -> tuple[int, int]:
    ms, _, n = id.partition("-")
    return int(ms), int(n or 0)
