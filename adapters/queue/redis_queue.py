"""`domain.queue.Queue` over Redis Streams: a topic is a stream, a group a consumer group of it.

What is to be tried again stays pending, and stands in a sorted set by the time of its next try. Redis 6.2 or later.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from domain.cloud_events import CloudEvent, event_of
from domain.errors import NotFound, Unavailable
from domain.queue import (
    DeadLetter,
    Delivered,
    GroupFigures,
    NoSuchTopic,
    Topic,
    TopicFigures,
    dead_letters,
    topic_stream,
)

_LUA = Path(__file__).parent / "lua"
_LOOK = 0.02  # seconds between two looks of a reader that waits


class Topics(Protocol):
    """Where the names of topics are kept."""

    def all(self) -> Awaitable[list[Topic]]: ...

    async def create(self, topic: Topic) -> None:
        """Raises `TopicExists`."""
        ...

    async def delete(self, name: str) -> None:
        """Raises `NoSuchTopic`."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """`lease`: seconds that a consumer may work on an event; `tries`: until it is a dead letter, the second of them
    after `pause` seconds, the later ones twice as late each, `longest` at the most; `length`, `dead`: what a topic
    keeps, about."""

    lease: float = 30.0
    tries: int = 5
    pause: float = 1.0
    longest: float = 300.0
    length: int = 100_000
    dead: int = 10_000


class RedisQueue:
    def __init__(self, redis: Redis, topics: Topics, rules: Rules | None = None) -> None:
        self._redis, self._topics, self._rules = redis, topics, rules or Rules()
        self._scripts = {path.stem: redis.register_script(path.read_text()) for path in _LUA.glob("*.lua")}

    async def create_topic(self, topic: Topic) -> None:
        await self._topics.create(topic)

    async def delete_topic(self, name: str) -> None:
        await self._topics.delete(name)
        async with _translated(name):
            groups = await self._groups(name)
            again = [_again(name, group["name"].decode()) for group in groups]
            await self._redis.delete(topic_stream(name), dead_letters(name), *again)

    async def topics(self) -> list[Topic]:
        return await self._topics.all()

    async def publish(self, name: str, events: Sequence[CloudEvent]) -> list[str]:
        await self._known(name)
        async with _translated(name), self._redis.pipeline(transaction=False) as pipeline:
            for event in events:
                fields: Any = {"e": orjson.dumps(event.json()), "r": 0}
                pipeline.xadd(topic_stream(name), fields, maxlen=self._rules.length)
            return [id.decode() for id in await pipeline.execute()]

    async def subscribe(self, name: str, group: str, since: datetime | None = None) -> None:
        await self._known(name)
        start = "$" if since is None else _id_before(since)
        async with _translated(name):
            try:
                await self._redis.xgroup_create(topic_stream(name), group, start, mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def unsubscribe(self, name: str, group: str) -> None:
        async with _translated(name):
            if not await self._redis.xgroup_destroy(topic_stream(name), group):
                raise NotFound(f"there is no group {group} of the topic {name}")
            await self._redis.delete(_again(name, group))

    async def read(self, name: str, group: str, consumer: str, limit: int, wait: float = 0) -> list[Delivered]:
        end = time.monotonic() + wait
        while True:
            lease = int(self._rules.lease * 1000)
            found = await self._call("read", name, [_again(name, group)], [group, consumer, limit, lease])
            if found or time.monotonic() >= end:
                return [Delivered(id.decode(), _event(fields), delivery) for id, delivery, fields in found]
            await asyncio.sleep(min(_LOOK, max(end - time.monotonic(), 0)))

    async def acknowledge(self, name: str, group: str, ids: Sequence[str]) -> int:
        return int(await self._call("acknowledge", name, [_again(name, group)], [group, *ids]))

    async def reject(self, name: str, group: str, ids: Sequence[str], error: str) -> int:
        rules = self._rules
        head = [group, error[:2000], rules.tries, int(rules.pause * 1000), int(rules.longest * 1000), rules.dead]
        return int(await self._call("reject", name, [_again(name, group), dead_letters(name)], [*head, *ids]))

    async def dead_letters(self, name: str, after: str | None, limit: int) -> list[DeadLetter]:
        await self._known(name)
        async with _translated(name):
            start = "-" if after is None else f"({after}"
            found: Any = await self._redis.xrange(dead_letters(name), start, "+", limit)
        return [_letter(id.decode(), fields) for id, fields in found]

    async def send_again(self, name: str, ids: Sequence[str]) -> int:
        await self._known(name)
        return int(await self._call("send_again", name, [dead_letters(name)], [self._rules.length, *ids]))

    async def replay(self, name: str, group: str, since: datetime) -> None:
        async with _translated(name):
            await self._redis.xgroup_setid(topic_stream(name), group, _id_before(since))

    async def statistics(self, name: str) -> TopicFigures:
        await self._known(name)
        async with _translated(name):
            key = topic_stream(name)
            length, dead = await self._redis.xlen(key), await self._redis.xlen(dead_letters(name))
            size = await self._redis.memory_usage(key, samples=0) or 0 if length else 0
            first: Any = await self._redis.xrange(key, count=1)
            last: Any = await self._redis.xrevrange(key, count=1)
            groups = [await self._group(name, group) for group in await self._groups(name)]
        ends = [one[0][0].decode() if one else None for one in (first, last)]
        return TopicFigures(name, length, size, dead, ends[0], ends[1], groups)

    async def close(self) -> None:
        await self._redis.aclose()

    async def _group(self, name: str, found: Any) -> GroupFigures:
        group = found["name"].decode()
        retrying = await self._redis.zcard(_again(name, group))
        return GroupFigures(group, found["pending"], retrying, found["consumers"], found["last-delivered-id"].decode())

    async def _groups(self, name: str) -> list[Any]:
        if not await self._redis.exists(topic_stream(name)):
            return []
        found: list[Any] = await self._redis.xinfo_groups(topic_stream(name))
        return found

    async def _known(self, name: str) -> None:
        if all(topic.name != name for topic in await self._topics.all()):
            raise NoSuchTopic(f"there is no topic {name}")

    async def _call(self, script: str, name: str, keys: list[str], args: Sequence[Any]) -> Any:
        async with _translated(name):
            answer: Awaitable[Any] = self._scripts[script](keys=[topic_stream(name), *keys], args=list(args))
            return await answer


@asynccontextmanager
async def _translated(name: str) -> AsyncIterator[None]:
    try:
        yield
    except ResponseError as error:
        words = str(error)
        if "NOGROUP" in words or "requires the key to exist" in words or "no such key" in words:
            raise NotFound(f"there is no such group of the topic {name}") from error
        if "Invalid stream ID" in words:
            raise NotFound("there is no event with such an id") from error
        raise Unavailable(f"Redis refuses ({words})") from error
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable(f"Redis cannot be reached ({type(error).__name__})") from error


def _again(name: str, group: str) -> str:
    return f"{topic_stream(name)}:again:{group}"


def _id_before(moment: datetime) -> str:
    """Everything from `moment` on comes behind it."""
    ms = int(moment.timestamp() * 1000)
    return "0-0" if ms <= 0 else f"{ms - 1}-{2**63}"


def _event(fields: list[bytes]) -> CloudEvent:
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    return event_of(orjson.loads(named[b"e"]))


def _letter(id: str, fields: dict[bytes, bytes]) -> DeadLetter:
    at = datetime.fromtimestamp(int(id.partition("-")[0]) / 1000, UTC)
    event = event_of(orjson.loads(fields[b"e"]))
    return DeadLetter(id, event, fields[b"g"].decode(), fields[b"x"].decode(), int(fields[b"d"]), at)
