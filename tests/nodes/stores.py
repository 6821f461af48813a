"""PostgreSQL and Redis on the head's address: the embedded ones, real servers, opened to the other machines."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serve_app.embedded import leftovers, postgres, redis
from serve_app.embedded.folder import DataFolder
from serve_app.embedded.postgres import OWNER, Postgres
from serve_app.embedded.redis import Redis
from storage.bootstrap import bootstrap
from storage.migrations import upgrade
from tests.nodes.space import NETWORK

DATABASE_PORT, JOURNAL_PORT = 5432, 6390


@dataclass(frozen=True, slots=True)
class Stores:
    """`key`: the operator's API key. `token`: the file of Ray's, which all nodes share."""

    database: str
    journal: str
    key: str
    token: Path


@contextmanager
def stores(base: Path, address: str) -> Iterator[Stores]:
    allowed = base / "hba.conf"
    allowed.write_text(f"host all all {NETWORK}.0/24 scram-sha-256\n")
    allowed.chmod(0o644)
    vars(postgres)["LOOPBACK"] = vars(redis)["LOOPBACK"] = address
    postgres.SETTINGS.update(listen_addresses=address, hba_file=str(allowed))
    folder = DataFolder(base / "stores")
    database, journal = Postgres(folder, DATABASE_PORT), Redis(folder, JOURNAL_PORT)
    key = "brain_" + "n" * 43
    folder.secret("ray-token")
    with asyncio.Runner() as runner:
        try:
            runner.run(_start(database, journal, key))
            yield Stores(database.url(), journal.url, key, folder.secrets / "ray-token")
        finally:
            runner.run(_stop(database, journal))
            leftovers.end(folder.instance)


async def _start(database: Postgres, journal: Redis, key: str) -> None:
    for server in (database, journal):
        await server.start()
        await server.ready()
    await database.make_database()
    await asyncio.to_thread(upgrade, database.url(OWNER))
    await database.grant_service()
    await asyncio.to_thread(bootstrap, database.url(OWNER), key)


async def _stop(database: Postgres, journal: Redis) -> None:
    await asyncio.gather(database.stop(), journal.stop())
