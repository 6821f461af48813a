"""The real PostgreSQL and Redis, as `brain up` runs them."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis.asyncio as aioredis
from redis.exceptions import AuthenticationError

from serve_app.embedded import leftovers, ports
from serve_app.embedded.child import Child, Command
from serve_app.embedded.folder import DataFolder
from serve_app.embedded.plan import Plan
from serve_app.embedded.postgres import OWNER, SERVICE, SUPERUSER, Postgres
from serve_app.embedded.redis import Redis
from serve_app.embedded.reporter import Reporter
from serve_app.embedded.supervisor import Supervisor
from serve_app.settings import Settings


async def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
def folder() -> Iterator[DataFolder]:
    # Not pytest's folder: its parents are closed to the user that PostgreSQL runs as.
    base = Path(tempfile.mkdtemp(prefix="brain-test-"))
    folder = DataFolder(base / "data")
    yield folder
    leftovers.end(folder.instance)
    shutil.rmtree(folder.recall("runtime") or base, ignore_errors=True)
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
async def postgres(folder: DataFolder) -> AsyncIterator[Postgres]:
    server = Postgres(folder, ports.choose(folder)["postgres"])
    await server.start()
    await server.ready()
    await server.make_database()
    yield server
    await server.stop()


@pytest.fixture
async def redis_server(folder: DataFolder) -> AsyncIterator[Redis]:
    server = Redis(folder, ports.choose(folder)["redis"])
    await server.start()
    await server.ready()
    yield server
    await server.stop()


async def test_postgres_is_durable_and_asks_for_passwords(postgres: Postgres) -> None:
    connection = await asyncpg.connect(postgres.url(SUPERUSER))
    shown = {name: await connection.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit")}
    assert shown == {"fsync": "on", "synchronous_commit": "on"}
    assert await connection.fetchval("SHOW listen_addresses") == "127.0.0.1"
    methods = {row[0] for row in await connection.fetch("SELECT auth_method FROM pg_hba_file_rules")}
    assert methods == {"scram-sha-256"}
    roles = {row["rolname"]: row for row in await connection.fetch("SELECT * FROM pg_roles")}
    for name in (OWNER, SERVICE):
        assert not roles[name]["rolsuper"]
        assert not roles[name]["rolbypassrls"]
    await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url(SERVICE), password="wrong")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(host=str(postgres.sockets), port=postgres.port, user=SUPERUSER, password="wrong")


async def test_a_committed_row_outlives_the_server(postgres: Postgres) -> None:
    connection = await asyncpg.connect(postgres.url(OWNER))
    await connection.execute("CREATE SCHEMA mine")
    await connection.execute("CREATE TABLE mine.rows AS SELECT 42 AS answer")
    assert postgres.child is not None
    postgres.child.process.send_signal(signal.SIGKILL)
    await postgres.child.wait()
    connection.terminate()
    await postgres.start()
    await postgres.ready()
    await postgres.make_database()  # a second start
    connection = await asyncpg.connect(postgres.url(OWNER))
    assert await connection.fetchval("SELECT answer FROM mine.rows") == 42
    await connection.close()


async def test_redis_asks_for_its_password_and_keeps_nothing(redis_server: Redis) -> None:
    async with aioredis.from_url(redis_server.url) as client:
        wanted = {"appendonly": "no", "save": "", "maxmemory-policy": "noeviction", "bind": "127.0.0.1"}
        assert {name: (await client.config_get(name))[name] for name in wanted} == wanted
    async with aioredis.from_url(redis_server.url.replace(redis_server.folder.secret("redis"), "wrong")) as client:
        with pytest.raises(AuthenticationError):
            await client.ping()
    arguments = psutil.Process(redis_server.child.process.pid).cmdline()  # type: ignore[union-attr]
    assert not any(redis_server.folder.secret("redis") in argument for argument in arguments)


async def test_what_dies_is_started_again(redis_server: Redis, folder: DataFolder) -> None:
    plan = Plan("127.0.0.1", 1, None, {}, None)
    supervisor = Supervisor(folder, Settings(), plan, Reporter())
    keeping = asyncio.create_task(supervisor._keep(redis_server))
    first = redis_server.child
    assert first is not None
    os.kill(first.process.pid, signal.SIGKILL)
    await eventually(lambda: redis_server.child is not first)
    await redis_server.ready()
    keeping.cancel()


async def test_leftovers_of_a_killed_start_are_found_and_ended(postgres: Postgres, folder: DataFolder) -> None:
    # A server whose own child has wiped its environment, as Ray's workers do.
    script = "env -i sleep 1000 & sleep 1000"
    child = await Child.start(Command("ray", ["sh", "-c", script], folder.logs / "x.log", folder.instance))
    await eventually(lambda: len([p for p in leftovers.find(folder.instance, "ray") if p.name() == "sleep"]) == 2)
    assert postgres.child is not None
    postmaster = psutil.Process(postgres.child.process.pid)
    await asyncio.to_thread(leftovers.end, folder.instance)
    assert leftovers.find(folder.instance) == []
    assert not psutil.pid_exists(child.process.pid)
    assert not postmaster.is_running()
    log = (folder.logs / "postgres.log").read_text()
    assert log.rstrip().endswith("database system is shut down")  # it was asked, not killed


async def test_another_folders_processes_are_left_alone(redis_server: Redis, folder: DataFolder) -> None:
    other = DataFolder(folder.path.parent / "other")
    assert leftovers.find(other.instance) == []
    assert await asyncio.to_thread(leftovers.end, other.instance) == 0
    await redis_server.ready()


async def test_a_stale_pid_file_does_not_stop_the_next_start(postgres: Postgres) -> None:
    await postgres.stop()
    (postgres.data / "postmaster.pid").write_text(f"{os.getpid()}\n{postgres.data}\n")
    await postgres.start()
    await postgres.ready()
