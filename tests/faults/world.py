"""What a campaign works on: a whole service, with a provider behind it, and what faults need to reach into it."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from serve_app.embedded.folder import DataFolder
from tests.conftest import free_port
from tests.e2e.brain import ROOT, Brain, mock_provider
from tests.faults.launch import DATABASE, JOURNAL, TREE
from tests.faults.proxy import Proxy
from tests.faults.shim import Shim

HASTY = {"connect": 2, "first_token": 5, "idle": 5, "total": 60}  # of the provider, seconds
ROOM = 4 << 30  # bytes that may be used besides what is, before Ray ends processes for want of memory


@dataclass(frozen=True, slots=True)
class World:
    """`provider`: the mock's URL. `database` and `journal`: between the replicas and PostgreSQL, and Redis.
    `memory`: the share of the machine's memory from which on Ray ends processes."""

    brain: Brain
    provider: str
    shim: Shim
    database: Proxy
    journal: Proxy
    memory: float


@contextmanager
def service(seed: int, tree: Path = ROOT, room: int = ROOM) -> Iterator[World]:
    """`brain up` in a folder of its own, of the source in `tree`. `room`: see `ROOM`."""
    with tempfile.TemporaryDirectory(prefix="verify-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        data = folder / "data"
        shim = Shim(folder)
        database, journal = (Proxy(_port(data, of), seed) for of in ("postgres", "redis"))
        memory = psutil.virtual_memory()
        share = min(0.95, (memory.total - memory.available + room) / memory.total)
        environment = {
            **shim.environment,
            "PYTHONPATH": f"{tree}:{shim.environment['PYTHONPATH']}",  # first: the caller's has a source of its own
            TREE: str(tree),
            DATABASE: str(database.port),
            JOURNAL: str(journal.port),
            "RAY_memory_usage_threshold": f"{share:.4f}",
            "MOCK_KEY": "k",
            "HOME": name,
        }
        try:
            with mock_provider(folder) as url:
                config = folder / "providers.yaml"
                config.write_text(json.dumps(_providers(url)))  # JSON is YAML
                brain = Brain(data, free_port(), ["--config", str(config)], environment, "tests.faults.launch")
                brain.start()
                try:
                    yield World(brain, url, shim, database, journal, share)
                finally:
                    for process in brain.processes():
                        process.resume()
                    brain.stop(60)
        finally:
            database.close()
            journal.close()


def _port(data: Path, name: str) -> Callable[[], int]:
    """Where one of the embedded servers listens, once it was started."""

    def port() -> int:
        return int(DataFolder(data).recall("ports")["single"][name])

    return port


def _providers(url: str) -> dict[str, object]:
    models = [{"id": "small", "upstream": "mock,n=8"}, {"id": "mock*"}]
    provider = {"name": "mock", "base_url": url, "key": "${MOCK_KEY}", "timeouts": HASTY, "models": models}
    return {"providers": [{**provider, "breaker": {"failures": 1_000_000}}], "routing": {"default": "small"}}
