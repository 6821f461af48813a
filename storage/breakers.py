"""Circuit breakers that replicas share through Redis: who is open, and who may try again.

`brain:breakers` is a sorted set: each model (`provider/model`) that failed, by the moment, in milliseconds of Redis's
clock, until which it rests; it stays there, rested, until a probe was answered. `brain:breakers:probe:…` is the lease
of the one that tries. Reading happens in the background, so nothing here costs a turn a round trip, but a probe.
"""

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

KEY = "brain:breakers"
INTERVAL = 0.5  # seconds between two reads
KEPT = 3600.0  # seconds that a rested entry is kept that nobody tries
PATIENCE = 0.5  # seconds that a probe waits for Redis
TAKE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
GIVE_BACK = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
AWAY = (RedisError, OSError, TimeoutError)


class RedisBreakers:
    """What replicas tell each other. Hosts and ingresses only read it: `unhealthy` is `domain.ports.Health`.

    `open`: monotonic seconds until which each model rests; `read_at`: when that was asked. While Redis is away both
    stay as they are, and nothing is lost that is told meanwhile.
    """

    def __init__(self, redis: Redis, interval: float = INTERVAL) -> None:
        self.open: Mapping[str, float] = {}
        self.read_at = -math.inf
        self._redis, self._interval, self._writer = redis, interval, uuid.uuid4().hex
        self._untold: dict[str, float | None] = {}  # until when each rests; None: closed
        self._ended: set[str] = set()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to read and to tell."""
        self._task = asyncio.create_task(self._follow(), name="breakers")

    async def close(self) -> None:
        self._closed = True  # a cancellation that reaches the client in the wrong moment is lost
        self._changed.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def unhealthy(self) -> frozenset[str]:
        now = time.monotonic()
        return frozenset(name for name, until in self.open.items() if until > now)

    def opened(self, name: str, seconds: float) -> None:
        self._tell(name, time.monotonic() + seconds)

    def closed(self, name: str) -> None:
        self._tell(name, None)

    def probed(self, name: str) -> None:
        self._ended.add(name)
        self._changed.set()

    async def probe(self, name: str, seconds: float) -> bool:
        """Take the lease of a probe; True also where Redis cannot say."""
        self._ended.discard(name)  # one that has just ended: its lease, if it was ours, is taken up again
        try:
            async with asyncio.timeout(PATIENCE):
                return bool(await self._take(f"{KEY}:probe:{name}", max(int(seconds * 1000), 1)))
        except AWAY:
            return True

    async def refresh(self) -> None:
        """Tell what changed here, then read what all have told. Raises what Redis raises."""
        asked, untold, ended = time.monotonic(), self._untold, self._ended
        self._untold, self._ended = {}, set()
        try:
            if not untold and not ended and not await self._redis.exists(KEY):  # as nearly always: all are well
                self.open, self.read_at = {}, asked
                return
            now_ms = await self._time_ms()
            async with self._redis.pipeline(transaction=False) as pipe:
                for name, until in untold.items():
                    if until is None:
                        pipe.zrem(KEY, name)
                    else:
                        pipe.zadd(KEY, {name: now_ms + max(until - asked, 0.0) * 1000})
                if untold:
                    pipe.zremrangebyscore(KEY, "-inf", now_ms - KEPT * 1000)
                for name in ended:
                    pipe.eval(GIVE_BACK, 1, f"{KEY}:probe:{name}", self._writer)
                pipe.zrange(KEY, 0, -1, withscores=True)
                entries = (await pipe.execute())[-1]
        except BaseException:
            self._untold, self._ended = untold | self._untold, ended | self._ended
            raise
        self.open = {name.decode(): asked + (score - now_ms) / 1000 for name, score in entries}
        self.read_at = asked

    async def _take(self, lease: str, milliseconds: int) -> Any:
        asking: Any = self._redis.eval(TAKE, 1, lease, self._writer, milliseconds)
        return await asking

    def _tell(self, name: str, until: float | None) -> None:
        self._untold[name] = until
        self._changed.set()

    async def _time_ms(self) -> float:
        seconds, microseconds = await self._redis.time()
        return float(seconds) * 1000 + float(microseconds) / 1000

    async def _follow(self) -> None:
        away = False
        while not self._closed:
            self._changed.clear()
            try:
                await self.refresh()
                away = False
            except AWAY as error:
                if not away:
                    log.warning("breakers are not shared for the moment: %s", type(error).__name__)
                away = True
            try:
                async with asyncio.timeout(self._interval):
                    if away:
                        await asyncio.sleep(self._interval)
                    await self._changed.wait()
            except TimeoutError:
                continue
