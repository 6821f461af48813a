"""Caches: in this process, and in Redis for all replicas."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from domain.caching import CacheStatistics
from domain.errors import JournalRefused, Unavailable
from domain.tenant import Caller
from storage.audit import record
from storage.postgres import Pool, reading
from storage.redis import Pipeline


class LocalCache:
    """`domain.caching.Cache` in this process: the `bound` entries that were used last."""

    shared = False

    def __init__(self, bound: int = 10_000, now: Callable[[], float] = time.monotonic) -> None:
        self._bound, self._now = bound, now
        self._kept: OrderedDict[tuple[str, str], tuple[float, bytes]] = OrderedDict()
        self._hits = self._misses = self._evicted = 0

    @property
    def statistics(self) -> CacheStatistics:
        return CacheStatistics(self._hits, self._misses, self._evicted, len(self._kept), self._bound)

    async def get(self, tenant: str, key: str) -> bytes | None:
        found = self._kept.get((tenant, key))
        if found is not None and self._now() < found[0]:
            self._kept.move_to_end((tenant, key))
            self._hits += 1
            return found[1]
        self._misses += 1
        if found is not None:
            del self._kept[tenant, key]
        return None

    async def put(self, tenant: str, key: str, value: bytes, ttl: float) -> None:
        self._kept[tenant, key] = (self._now() + ttl, value)
        self._kept.move_to_end((tenant, key))
        if len(self._kept) > self._bound:
            self._kept.popitem(last=False)
            self._evicted += 1

    async def forget(self, tenant: str, key: str) -> None:
        self._kept.pop((tenant, key), None)

    async def flush(self) -> None:
        self._kept.clear()


class RedisCache:
    """`domain.caching.Cache` that replicas share. Its bound is Redis's own memory and policy.

    Each entry carries the generation in which it was put; a flush begins another one, and Redis lets the old entries
    go when their time is over. An entry and the generation are read in one round trip.
    """

    shared = True

    def __init__(self, redis: Redis, name: str) -> None:
        self._pipeline, self._name = Pipeline(redis), name
        self._generation = f"brain:cache:{name}:generation"
        self._hits = self._misses = 0

    @property
    def statistics(self) -> CacheStatistics:
        return CacheStatistics(self._hits, self._misses)

    async def get(self, tenant: str, key: str) -> bytes | None:
        wanted = [self._pipeline.send("GET", name) for name in (self._key(tenant, key), self._generation)]
        try:
            found, now = await asyncio.gather(*wanted)
        except (Unavailable, ResponseError):
            found = now = None
        if found is not None:
            put_in, _, value = bytes(found).partition(b":")
            if put_in == (now or b"0"):
                self._hits += 1
                return value
        self._misses += 1
        return None

    async def put(self, tenant: str, key: str, value: bytes, ttl: float) -> None:
        try:
            generation = await self._send("GET", self._generation) or b"0"
            content = generation + b":" + value
            await self._send("SET", self._key(tenant, key), content, "PX", max(1, int(ttl * 1000)))
        except Unavailable:
            return

    async def forget(self, tenant: str, key: str) -> None:
        await self._send("DEL", self._key(tenant, key))

    async def flush(self) -> None:
        await self._send("INCR", self._generation)

    async def close(self) -> None:
        await self._pipeline.close()

    def _key(self, tenant: str, key: str) -> str:
        return f"brain:cache:{self._name}:{tenant}:{key}"

    async def _send(self, *command: Any) -> Any:
        try:
            return await self._pipeline.send(*command)
        except ResponseError as error:
            raise JournalRefused(str(error)) from error


async def tell_flush(pool: Pool, caller: Caller, name: str) -> None:
    """Let every replica hear that this cache is flushed, and keep a record of it. Raises `Unavailable`."""
    async with reading(pool, caller.tenant) as lent:
        await lent.execute("SELECT brain.access_changed($1, 'cache', $2)", caller.tenant, name)
        await record(lent, caller, "cache.flush", name)
