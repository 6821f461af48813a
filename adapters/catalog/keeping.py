"""Remembers what shops' services answered: fresh for as long as they say, and for a while after that an older answer
while a new one is fetched, or where none can be had (RFC 5861)."""

import asyncio
import logging
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from adapters.catalog.asking import Asking, Endpoint
from adapters.catalog.contract import Read, WrongAnswer
from adapters.catalog.questions import Question
from domain.caching import Cache
from domain.errors import BrainError, NotFound
from domain.products import CatalogueUnavailable

log = logging.getLogger("brain.catalogue")

STALE = 3600.0  # seconds beyond its time that an answer may stand in for another
LARGEST = 256 * 1024  # bytes of an answer that is kept
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer as it came. `at`: Unix seconds; `fresh`: for how many it holds."""

    body: bytes
    etag: str | None
    at: float
    fresh: float

    def packed(self) -> bytes:
        head = orjson.dumps({"etag": self.etag, "at": self.at, "fresh": self.fresh})
        return head + b"\n" + zlib.compress(self.body, 1)

    @classmethod
    def unpacked(cls, packed: bytes) -> "Entry | None":
        head, _, body = packed.partition(b"\n")
        try:
            return cls(zlib.decompress(body), **orjson.loads(head))
        except (ValueError, TypeError, zlib.error):
            return None


class Keeping:
    """`saw` hears of each answer: `fresh` or `stale` from memory, `asked` anew, `failed`. `clock`: Unix seconds, which
    replicas share."""

    def __init__(self, asking: Asking, cache: Cache, clock: Callable[[], float] = time.time) -> None:
        self._asking, self._cache, self._clock = asking, cache, clock
        self._running: dict[tuple[str, str], asyncio.Task[Any]] = {}
        self.saw: Callable[[str], None] = lambda how: None

    async def get(self, tenant: str, endpoint: Endpoint, question: Question, read: Read[T]) -> tuple[T, float]:
        """The answer, and for how many seconds it is out of date. Raises `NotFound`, `CatalogueUnavailable`."""
        key = f"{endpoint.version}:{question.key}"
        found = await self._cache.get(tenant, key)
        entry = None if found is None else Entry.unpacked(found)
        value: T | None = None
        if entry is not None:
            with suppress(WrongAnswer):  # kept by code that read it otherwise
                value = read(entry.body)
        if entry is not None and value is not None:
            age = max(0.0, self._clock() - entry.at)
            if age <= entry.fresh:
                self.saw("fresh")
                return value, 0.0
            if age <= entry.fresh + STALE:
                self._fetch(tenant, endpoint, question, key, read, entry)
                self.saw("stale")
                return value, age
        fetched: T = await self._told(self._fetch(tenant, endpoint, question, key, read, None))
        return fetched, 0.0

    async def ask(self, tenant: str, endpoint: Endpoint, question: Question, read: Read[T]) -> T:
        """Without a look at what is known, and to be forgotten at once."""
        answer: T = await self._told(self._now(tenant, endpoint, question, read))
        return answer

    async def close(self) -> None:
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _told(self, answer: Any) -> Any:
        try:
            value = await (asyncio.shield(answer) if isinstance(answer, asyncio.Task) else answer)
        except CatalogueUnavailable:
            self.saw("failed")
            raise
        self.saw("asked")
        return value

    async def _now(self, tenant: str, endpoint: Endpoint, question: Question, read: Read[T]) -> T:
        given = await self._asking.ask(tenant, endpoint, question)
        return _understood(tenant, given.body or b"", read)

    def _fetch(
        self, tenant: str, endpoint: Endpoint, question: Question, key: str, read: Read[T], known: Entry | None
    ) -> "asyncio.Task[T]":
        """One for all who ask the same; whoever gives up waiting ends it for none of them."""
        running = self._running.get((tenant, key))
        if running is None:
            work = self._fetched(tenant, endpoint, question, key, read, known)
            running = self._running[tenant, key] = asyncio.create_task(work, context=Context())
            running.add_done_callback(lambda task: self._ended(tenant, key, task))
        return running

    def _ended(self, tenant: str, key: str, task: "asyncio.Task[Any]") -> None:
        del self._running[tenant, key]
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, BrainError):
            log.error("the catalogue of tenant %s cannot be asked", tenant, exc_info=error)

    async def _fetched(
        self, tenant: str, endpoint: Endpoint, question: Question, key: str, read: Read[T], known: Entry | None
    ) -> T:
        try:
            given = await self._asking.ask(tenant, endpoint, question, known.etag if known else None)
        except NotFound:
            with suppress(BrainError):
                await self._cache.forget(tenant, key)
            raise
        body, etag = given.body, given.etag
        if body is None:  # what was known still holds
            body, etag = (known.body, etag or known.etag) if known else (b"", etag)
        value = _understood(tenant, body, read)
        with suppress(BrainError):
            if given.fresh is None:
                await self._cache.forget(tenant, key)
            elif len(body) <= LARGEST:
                entry = Entry(body, etag, self._clock(), given.fresh)
                await self._cache.put(tenant, key, entry.packed(), given.fresh + STALE)
        return value


def _understood(tenant: str, body: bytes, read: Read[T]) -> T:
    try:
        return read(body)
    except WrongAnswer as error:
        log.warning("tenant %s: %s", tenant, error)
        raise
