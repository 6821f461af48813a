"""The set as tests see it: where its servers listen, and a database of its own for whoever asks."""

import json
import os
import random
import uuid
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import psutil
import psycopg

from storage.postgres import Pool
from storage.postgres import open_pool as open_direct

VARIABLE = "BRAIN_TEST_SERVERS"  # a file with a `Servers`
MARK = "BRAIN_TEST_SET"  # in the environment of the set's own processes: its folder
DATABASES = 4096  # of Redis


@dataclass(frozen=True, slots=True)
class Servers:
    """`folder` holds all that the set keeps. Ports are on 127.0.0.1. The logins `owner`, of schemas, and `service`
    are no superusers."""

    folder: str
    postgres_port: int
    pooler_port: int
    redis_port: int
    owner_password: str = field(repr=False)
    service_password: str = field(repr=False)
    redis_password: str = field(repr=False)

    @property
    def sockets(self) -> Path:
        """Where `postgres`, the superuser, connects without a password."""
        return Path(self.folder) / "sockets"

    def owner_url(self, database: str, direct: bool = False) -> str:
        port = self.postgres_port if direct else self.pooler_port
        return f"postgresql://owner:{self.owner_password}@127.0.0.1:{port}/{database}"

    def service_url(self, database: str, direct: bool = False) -> str:
        port = self.postgres_port if direct else self.pooler_port
        return f"postgresql://service:{self.service_password}@127.0.0.1:{port}/{database}"

    def redis_url(self) -> str:
        """One of its databases, so that services side by side do not hear each other."""
        return f"redis://:{self.redis_password}@127.0.0.1:{self.redis_port}/{random.randrange(1, DATABASES)}"

    def make_database(self) -> str:
        """An empty database of the owner's; its name."""
        name = f"b{uuid.uuid4().hex[:12]}"
        with psycopg.connect(f"postgresql://postgres@/postgres?host={self.sockets}", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER owner")
        return name

    def settings(self, database: str, pooled: bool = True) -> dict[str, str]:
        """What a Brain is told, to work on them."""
        return {
            "BRAIN_DATABASE_ADMIN_URL": self.owner_url(database, direct=not pooled),
            "BRAIN_DATABASE_URL": self.service_url(database, direct=not pooled),
            "BRAIN_DATABASE_POOLED": str(pooled).lower(),
            "BRAIN_REDIS_URL": self.redis_url(),
        }

    def processes(self, title: str) -> list[psutil.Process]:
        """The set's processes whose title contains `title`; of PostgreSQL the postmaster alone."""
        found = []
        for process in psutil.process_iter():
            try:
                if title in " ".join(process.cmdline()) and process.environ().get(MARK) == self.folder:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def write(self) -> Path:
        path = Path(self.folder) / "servers.json"
        path.touch(0o600)
        path.write_text(json.dumps(asdict(self)))
        return path


@cache
def servers() -> Servers | None:
    """Those that these tests are to use; None: the embedded ones."""
    path = os.environ.get(VARIABLE)
    return Servers(**json.loads(Path(path).read_text())) if path else None


async def open_pool(url: str, size: int, min_size: int = 1) -> Pool:
    """As the service does, on the database whose owner connects at `url`; through the pooler where there is one."""
    given = servers()
    if given is None or given.owner_password not in url:
        return await open_direct(url, size, min_size)
    database = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    return await open_direct(given.service_url(str(database)), size, min_size, pooled=True)
