"""A relay as a process of its own: `python -m tests.storage.relay_process URL REDIS HOLDER LEASE`."""

import asyncio
import sys

from serve_app.event_relay import EventRelay
from storage.event_log import PostgresEventLog
from storage.event_streams import Bounds, EventStreams
from storage.event_topics import PostgresTopics
from storage.redis import open_redis
from tests.servers.given import open_pool


async def main(url: str, redis_url: str, holder: str, lease: str) -> None:
    pool = await open_pool(url, 3)
    log = PostgresEventLog(pool, float(lease))
    log.holder = holder
    bounds = Bounds(of_tenant=1_000_000, of_topic=1_000_000)
    EventRelay(log, EventStreams(open_redis(redis_url), bounds), PostgresTopics(pool)).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
