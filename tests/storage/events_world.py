"""An outbox, a Redis of its own, and relays between them."""

import asyncio
import json
import time

import orjson
import psycopg
from redis.asyncio import Redis

from domain.cloud_events import event_of
from domain.ids import new_id
from domain.queue import tenant_stream
from serve_app.event_relay import EventRelay
from serve_app.ingress.event_feed import EventFeed
from storage.event_log import KeptEvents, PostgresEventLog
from storage.event_streams import Bounds, EventStreams
from storage.event_tail import EventTail
from storage.event_topics import PostgresTopics
from storage.redis import open_redis


class EventsWorld:
    """`lease`: of relays, in seconds."""

    def __init__(self, url: str, pool, redis_url: str, lease: float = 3.0) -> None:
        self.url, self.pool, self.redis_url, self.lease = url, pool, redis_url, lease
        self.redis: Redis = open_redis(redis_url, timeout=5)
        self.relays: list[EventRelay] = []
        self.feeds: list[EventFeed] = []

    async def empty(self) -> None:
        await self.redis.flushall()
        with psycopg.connect(self.url) as connection:
            connection.execute("DELETE FROM brain.outbox")
            connection.execute("DELETE FROM brain.event_topics WHERE name <> 'brain'")
            connection.execute("UPDATE brain.relays SET holder = NULL, until = '-infinity', again_after = NULL")

    def relay(self, republish: float = 3600, bounds: Bounds | None = None) -> EventRelay:
        log = PostgresEventLog(self.pool, self.lease)
        streams = EventStreams(open_redis(self.redis_url), bounds)
        relay = EventRelay(log, streams, PostgresTopics(self.pool), republish)
        self.relays.append(relay)
        return relay

    def feed(self) -> EventFeed:
        tail = EventTail(open_redis(self.redis_url), open_redis(self.redis_url, timeout=10))
        feed = EventFeed(tail, KeptEvents(self.pool))
        self.feeds.append(feed)
        return feed

    def write(self, tenant: str, topic: str, payload: dict | None = None, count: int = 1) -> list[int]:
        """Rows of the outbox, each with a number in its conversation."""
        conversation = (payload or {}).get("conversation_id") or new_id("conv")
        with psycopg.connect(self.url) as connection:
            return [
                connection.execute(
                    "INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES (%s, %s, %s) RETURNING id",
                    [tenant, topic, json.dumps({"conversation_id": conversation, "seq": n, **(payload or {})})],
                ).fetchone()[0]
                for n in range(count)
            ]

    async def stream(self, key: str):
        """The events of a stream."""
        return [event_of(orjson.loads(fields[b"e"])) for _, fields in await self.redis.xrange(key)]

    async def of_tenant(self, tenant: str):
        return await self.stream(tenant_stream(tenant))

    async def drain(self, relay: EventRelay) -> None:
        """Let the relay work until nothing waits."""
        while True:
            idle = not await relay.step()
            if idle and relay._term is not None and relay._term.again_after is None and not self.waiting():
                return

    def waiting(self) -> int:
        with psycopg.connect(self.url) as connection:
            return connection.execute("SELECT count(*) FROM brain.outbox WHERE NOT confirmed @> '{relay}'").fetchone()[
                0
            ]

    async def close(self) -> None:
        await asyncio.gather(*(relay.close() for relay in self.relays), *(feed.close() for feed in self.feeds))
        await self.redis.aclose()


async def until(condition, within: float = 20.0):
    """The first true value of `condition()`, awaited where it is a coroutine."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, "it did not come in time"
        await asyncio.sleep(0.02)


async def gather(follow, count: int, within: float = 20.0) -> list:
    """The next `count` of a followed feed."""
    async with asyncio.timeout(within):
        return [await anext(follow) for _ in range(count)]
