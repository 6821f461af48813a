"""`python -m tests.doubles.relay_process URL`: the relay's deliveries in a process of its own, to be killed."""

import asyncio
import sys

from serve_app.deliveries import Deliveries
from storage.conversations import PostgresConversations
from tests.doubles.receiver import ALLOWED
from tests.servers.given import open_pool
from tests.unit.ingress_world import MASTER, MemoryJournal, ScriptedHosts


async def main(url: str) -> None:
    pool = await open_pool(url, 8)
    hosts = ScriptedHosts(PostgresConversations(pool), MemoryJournal())
    deliveries = Deliveries(pool, MASTER, ALLOWED, hosts, held=1.0)
    deliveries.start()
    print("started", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
