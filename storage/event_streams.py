"""Where events lie in Redis: one stream a tenant, one a topic. A batch of rows is one call of a script.

Nothing is kept here alone. A stream that is gone or was cut is answered from the outbox.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from domain.cloud_events import CloudEvent, Fact, event_of, matches, told
from domain.errors import Fenced, Unavailable
from domain.queue import dead_letters, tenant_stream, topic_stream
from storage.redis import Line

STATE, UNCONFIRMED = "brain:relay", "brain:relay:unconfirmed"
_SCRIPTS = {name: (Path(__file__).parent / "lua" / f"{name}.lua").read_text() for name in ("relay", "relay_adopt")}
_SHA = {name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in _SCRIPTS.items()}


class DataLost(Exception):
    """Redis does not have what it was given."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """`of_tenant`, `of_topic`: events that a stream keeps, about; `life`: seconds that a tenant's stream is kept after
    its last event."""

    of_tenant: int = 10_000
    of_topic: int = 100_000
    life: int = 3600


@dataclass(frozen=True, slots=True)
class Published:
    position: int
    events: int
    entries: int


class EventStreams:
    """One relay's connection. Methods raise `Unavailable`; a batch may then have been taken or not."""

    def __init__(self, redis: Redis, bounds: Bounds | None = None) -> None:
        self._redis, self._line, self._bounds = redis, Line(redis), bounds or Bounds()

    async def publish(
        self,
        epoch: int,
        marker: str,
        position: int,
        facts: Sequence[Fact],
        topics: Mapping[str, Sequence[str]],
        confirmed: Sequence[Fact] = (),
    ) -> Published:
        """Put the events of these rows into their tenants' streams and the topics', unless they are there and were
        never confirmed. `topics`: names and patterns; `confirmed`: rows of before that need not be remembered any more.

        Raises `Fenced` where a later relay works, `DataLost` where Redis has not the marker or not the position.
        """
        places: dict[str, int] = {}
        limits: list[int] = []
        rows: list[Any] = []
        events = entries = 0
        chosen: dict[str, list[str]] = {}

        def place(key: str, most: int, life: int) -> int:
            found = places.get(key)
            if found is None:
                found = places[key] = len(places) + 1
                limits.extend((most, life))
            return found

        for fact in facts:
            own = place(tenant_stream(fact.tenant), self._bounds.of_tenant, self._bounds.life)
            parts: list[Any] = []
            for event in told(fact):
                body = orjson.dumps(event.json())
                parts += (own, body)
                events += 1
                if event.type not in chosen:
                    chosen[event.type] = [name for name, patterns in topics.items() if matches(patterns, event.type)]
                for name in chosen[event.type]:
                    parts += (place(topic_stream(name), self._bounds.of_topic, 0), body)
            rows += (_name(fact), fact.id, len(parts) // 2)
            rows += parts
            entries += len(parts) // 2
        head = (epoch, marker, position, len(confirmed), *map(_name, confirmed))
        answer = await self._script("relay", [STATE, UNCONFIRMED, *places], [*head, *limits, *rows])
        if answer == -1:
            raise Fenced
        if answer == -2:
            raise DataLost
        return Published(answer, events, entries)

    async def adopt(self, epoch: int, marker: str) -> None:
        """Take the marker up in a Redis that lost its data. Raises `Fenced`."""
        if await self._script("relay_adopt", [STATE, UNCONFIRMED], [epoch, marker]) == -1:
            raise Fenced

    async def forget(self, tenant: str) -> None:
        """The tenant is gone, and its stream with it."""
        await self._send("DEL", tenant_stream(tenant))

    async def trim(self, topics: Sequence[str], age: float) -> None:
        """Let go of the topics' events that are older than `age` seconds. Tenants' streams end by themselves."""
        seconds, _ = await self._redis.time()
        for topic in topics:
            await self._redis.xtrim(topic_stream(topic), minid=f"{int((seconds - age) * 1000)}-0")

    async def dead_letters(self, topics: Sequence[str]) -> int:
        """How many the topics have."""
        counts = [await self._redis.xlen(dead_letters(topic)) for topic in topics]
        return sum(counts)

    async def close(self) -> None:
        await self._line.close()

    async def _script(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> int:
        try:
            return int(await self._send("EVALSHA", _SHA[name], len(keys), *keys, *args))
        except NoScriptError:
            return int(await self._send("EVAL", _SCRIPTS[name], len(keys), *keys, *args))

    async def _send(self, *command: Any) -> Any:
        try:
            (answer,) = await self._line.exchange([command])
        except (TimeoutError, RedisError, OSError) as error:
            await self._line.drop()
            raise Unavailable(f"Redis cannot be reached ({type(error).__name__})") from error
        except BaseException:
            await self._line.drop()  # an answer may be on its way
            raise
        if isinstance(answer, NoScriptError):
            raise answer
        if isinstance(answer, Exception):
            raise Unavailable(f"Redis refuses ({answer})") from answer
        return answer


def _name(fact: Fact) -> str:
    """A number alone would not do: a database that was restored may give it again."""
    return f"{fact.id}.{fact.at.timestamp():.6f}"


def read_entry(entry: Any) -> tuple[str, int, CloudEvent]:
    """The id of a stream's entry, the row that it came from (0: none), and its event."""
    found, fields = entry
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    return found.decode(), int(named.get(b"r", b"0")), event_of(orjson.loads(named[b"e"]))
