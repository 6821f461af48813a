"""`python -m tests.doubles.relay_process URL [REDIS]`: the relay's deliveries in a process of its own, to be killed.

With a Redis, it holds connections of channels, too.
"""

import asyncio
import sys

from serve_app.deliveries import Deliveries
from serve_app.service_channels import service_channel
from storage.conversations import PostgresConversations
from tests.doubles.receiver import ALLOWED
from tests.servers.given import open_pool
from tests.unit.ingress_world import MASTER, MemoryJournal, ScriptedHosts


async def main(url: str, redis_url: str | None = None) -> None:
    pool = await open_pool(url, 8)
    hosts = ScriptedHosts(PostgresConversations(pool), MemoryJournal())
    more = [] if redis_url is None else [service_channel(pool, MASTER, ALLOWED, redis_url, lease=1.0)]
    deliveries = Deliveries(pool, MASTER, ALLOWED, hosts, more, held=1.0)
    deliveries.start()
    print("started", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
