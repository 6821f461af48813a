"""Starts the set in a temporary folder, on free ports, starts again what dies, and ends all of it."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import redis

from serve_app.embedded import system_user
from storage.migrations import upgrade
from tests.conftest import free_port, wait_until
from tests.servers import configs
from tests.servers.given import MARK, Servers
from tests.servers.install import Programs

AGAIN = 0.3  # seconds until what died is started again


class Kept:
    """A server's process, started again whenever it ends."""

    def __init__(self, name: str, command: list[str], folder: Path, user: str | None) -> None:
        self._name, self._command, self._folder, self._user = name, command, folder, user
        self._ending = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", MARK: str(self._folder)}
        with (self._folder / f"{self._name}.log").open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=self._folder,
                start_new_session=True,  # Ctrl-C ends the tests first
                user=self._user,
                group=pwd.getpwnam(self._user).pw_gid if self._user else None,
                extra_groups=[] if self._user else None,
            )

    def _keep(self) -> None:
        while True:
            self._process.wait()
            if self._ending.wait(AGAIN):
                return
            self._process = self._start()

    def close(self) -> None:
        self._ending.set()
        self._process.send_signal(2 if self._name == "postgres" else 15)  # SIGINT: without waiting for connections
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._thread.join(10)


@contextmanager
def running(programs: Programs) -> Iterator[Servers]:
    """The set, ready: both logins are made, and the service's has the rights of `brain_app`."""
    user = system_user.NAME if system_user.unprivileged() else None
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="servers-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        ports = [free_port() for _ in range(3)]
        given = Servers(str(folder), *ports, *(secrets.token_hex(16) for _ in range(3)))
        given.write()
        _prepare(programs, given, folder, user)
        commands = {
            "postgres": [programs.postgres / "postgres", "-D", folder / "postgres"],
            "pgbouncer": [programs.pgbouncer, folder / "pgbouncer.ini"],
            "redis": [programs.redis, folder / "redis.conf"],
        }
        for name, command in commands.items():
            stack.callback(Kept(name, [str(word) for word in command], folder, user).close)
        _make_logins(given)
        yield given


def _prepare(programs: Programs, given: Servers, folder: Path, user: str | None) -> None:
    (folder / "sockets").mkdir()
    # Clients name a folder and no port: the default port's socket leads to the real one.
    (folder / "sockets" / ".s.PGSQL.5432").symlink_to(f".s.PGSQL.{given.postgres_port}")
    users = {"owner": given.owner_password, "service": given.service_password}
    (folder / "users.txt").write_text("".join(f'"{name}" "{password}"\n' for name, password in users.items()))
    values = {"folder": folder, "database": given.postgres_port, "password": given.redis_password}
    configs.write(folder / "pgbouncer.ini", configs.PGBOUNCER, port=given.pooler_port, **values)
    configs.write(folder / "redis.conf", configs.REDIS, port=given.redis_port, **values)
    if user:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, user, pwd.getpwnam(user).pw_gid)
    subprocess.run(
        [programs.postgres / "initdb", "-D", folder / "postgres", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=folder,
        user=user,
        extra_groups=[] if user else None,
    )
    with (folder / "postgres" / "postgresql.conf").open("a") as config:
        config.write(configs.POSTGRES.format(port=given.postgres_port, folder=folder))
    (folder / "postgres" / "pg_hba.conf").write_text(configs.HBA)


def _make_logins(given: Servers) -> None:
    """As docs/operations.md tells an administrator. Roles belong to the server: one migration makes `brain_app`."""
    superuser = f"postgresql://postgres@/postgres?host={given.sockets}"
    wait_until(lambda: _answers(lambda: psycopg.connect(superuser).close()), what="PostgreSQL")
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE owner LOGIN CREATEROLE PASSWORD '{given.owner_password}'")
        connection.execute(f"CREATE ROLE service LOGIN PASSWORD '{given.service_password}'")
    database = given.make_database()
    wait_until(lambda: _answers(lambda: psycopg.connect(given.owner_url(database)).close()), what="PgBouncer")
    upgrade(given.owner_url(database))
    with psycopg.connect(given.owner_url(database)) as connection:
        connection.execute("GRANT brain_app TO service")
    with redis.Redis.from_url(given.redis_url()) as client:
        wait_until(lambda: _answers(client.ping), what="Redis")


def _answers(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except (psycopg.OperationalError, redis.RedisError, OSError):
        return False
    return True
