"""The programs of the set, from Debian's packages."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

POSTGRES = Path("/usr/lib/postgresql")
PACKAGES = ("postgresql", "pgbouncer")
FOLDERS = "/usr/bin:/usr/sbin:/usr/local/bin"


class Missing(Exception):
    """The programs are not there and cannot be installed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Programs:
    """`postgres`: the folder of its programs. `redis`: Redis' server, or Valkey's."""

    postgres: Path
    pgbouncer: Path
    redis: Path

    def versions(self) -> str:
        asked = (self.postgres / "postgres", self.pgbouncer, self.redis)
        said = (subprocess.run([one, "--version"], capture_output=True, text=True, check=True).stdout for one in asked)
        return ", ".join(one.splitlines()[0] for one in said)


def programs() -> Programs:
    """Where they are; installs them as root with apt-get. Raises `Missing`."""
    found = _found()
    if found is not None:
        return found
    redis = "valkey-server" if _is_known("valkey-server") else "redis-server"
    command = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES, redis]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Missing(f"PostgreSQL, PgBouncer or Redis is not installed: run `{' '.join(command)}` as root")
    # Debian would start a server of each package at once; this set starts its own.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    subprocess.run(["apt-get", "update"], env=environment, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    found = _found()
    if found is None:
        raise Missing(f"`{' '.join(command)}` did not install the programs")
    return found


def _found() -> Programs | None:
    postgres = sorted(POSTGRES.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    pgbouncer = shutil.which("pgbouncer", path=FOLDERS)
    redis = shutil.which("valkey-server", path=FOLDERS) or shutil.which("redis-server", path=FOLDERS)
    if not postgres or pgbouncer is None or redis is None:
        return None
    return Programs(postgres[-1].parent, Path(pgbouncer), Path(redis))


def _is_known(package: str) -> bool:
    if shutil.which("apt-cache") is None:
        return False
    return bool(subprocess.run(["apt-cache", "search", f"^{package}$"], capture_output=True, check=False).stdout)
