"""`brain`, for campaigns: PostgreSQL and Redis see the shim, and replicas reach both through the campaign's proxies.

Without this they would see nothing of the caller's environment, and be asked directly.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from serve_app.cli import main
from serve_app.embedded import child, postgres, redis, supervisor
from serve_app.embedded.ports import LOOPBACK

SHIM = ("LD_PRELOAD", "FAULTS_SHIM")
TREE = "FAULTS_TREE"
DATABASE, JOURNAL = "FAULTS_DATABASE_PORT", "FAULTS_REDIS_PORT"


def _environment() -> dict[str, str]:
    return {**child.basic_environment(), **{name: os.environ[name] for name in SHIM if name in os.environ}}


def _through(url: str, variable: str) -> str:
    """The same server, by way of a proxy."""
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@{LOOPBACK}:{os.environ[variable]}"))


class _Supervisor(supervisor.Supervisor):
    def _replicas_environment(self) -> dict[str, str]:
        return {
            **super()._replicas_environment(),
            "BRAIN_DATABASE_URL": _through(self.database_url, DATABASE),
            "BRAIN_REDIS_URL": _through(self.redis_url, JOURNAL),
        }


if __name__ == "__main__":
    if not Path(supervisor.__file__).is_relative_to(os.environ[TREE]):
        raise SystemExit(f"{supervisor.__file__} is not of the source that is to be tried")
    for server in (postgres, redis):
        vars(server)["basic_environment"] = _environment
    supervisor.Supervisor = _Supervisor  # type: ignore[misc]
    main()
