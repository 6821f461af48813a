"""What the routes of events work with."""

from dataclasses import dataclass

from starlette.requests import Request

from adapters.queue.redis_queue import RedisQueue
from domain.errors import Unavailable
from serve_app.ingress.event_feed import EventFeed
from serve_app.ingress.parts import parts_of
from storage.event_log import KeptEvents, PostgresEventLog
from storage.event_tail import EventTail
from storage.event_topics import PostgresTopics
from storage.postgres import Pool
from storage.redis import open_redis


@dataclass(frozen=True, slots=True)
class Events:
    """`feed`: tenants' events as they come; `queue`: the platform's topics, which `topics` keeps; `log`: what waits to
    be published."""

    feed: EventFeed
    queue: RedisQueue
    topics: PostgresTopics
    log: PostgresEventLog

    async def close(self) -> None:
        await self.feed.close()
        await self.queue.close()


def events(pool: Pool, redis_url: str) -> Events:
    topics = PostgresTopics(pool)
    tail = EventTail(open_redis(redis_url), open_redis(redis_url, timeout=10))
    return Events(
        feed=EventFeed(tail, KeptEvents(pool)),
        queue=RedisQueue(open_redis(redis_url), topics),
        topics=topics,
        log=PostgresEventLog(pool),
    )


def events_of(request: Request) -> Events:
    found = parts_of(request).events
    if found is None:
        raise Unavailable("events cannot be followed here")
    return found
