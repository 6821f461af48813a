"""This service, started with `brain up` on a data folder of its own."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import psutil

from benchmarks.process_tree import below, started
from benchmarks.systems import Provider, free_port
from benchmarks.targets import ChatCompletions

NO_WRITES = {"BRAIN_BENCH_NO_POSTGRES_WRITES": "1"}
"""Accept and finish answer from memory: what a turn costs without its transactions."""


@dataclasses.dataclass(frozen=True, slots=True)
class Brain:
    """A running service. `pid` is the supervisor; everything else runs below it."""

    url: str
    key: str
    tenant_id: str
    pid: int
    data: Path

    @property
    def headers(self) -> dict[str, str]:
        """The operator's authorization."""
        return {"authorization": f"Bearer {self.key}"}

    @property
    def admin_url(self) -> str:
        """The embedded PostgreSQL as its superuser, to put conversations there that nobody has to talk through."""
        password = (self.data / "secrets" / "postgres-postgres").read_text().strip()
        port = (self.data / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[3]
        return f"postgresql://postgres:{quote(password)}@127.0.0.1:{port}/brain"

    def replicas(self, deployment: str) -> list[psutil.Process]:
        """The processes of its replicas, oldest first."""
        found = [process for process in below() if _title(process).startswith("ray::ServeReplica:")]
        return sorted((p for p in found if deployment in _title(p)), key=lambda p: p.create_time())

    def hosts(self) -> list[psutil.Process]:
        """The processes of the ConversationHost replicas, oldest first."""
        return self.replicas("ConversationHost")

    def chat(self, *, kept: bool, name: Callable[[str], str] = str) -> ChatCompletions:
        """Its OpenAI-compatible side, with turns kept in conversations or not at all."""
        conversations = f"{self.url}/api/v1/conversations" if kept else None
        return ChatCompletions(f"{self.url}/v1", self.key, name, conversations)


@contextlib.contextmanager
def start(
    provider: Provider,
    folder: Path,
    models: Sequence[str] = ("mock*",),
    env: dict[str, str] | None = None,
    places: int | None = None,
) -> Iterator[Brain]:
    """Run it while the block runs; a second start with the same folder finds the same data.

    `places`: calls at once that the provider is asked for.
    """
    ready = folder / "brain.ready"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "serve_app.cli", "up", "--port", str(free_port())]
    command += ["--data", str(folder / "brain"), "--ready-file", str(ready)]
    if places is None:
        command += ["--provider-url", provider.url, "--provider-key", provider.key]
        command += [word for model in models for word in ("--model", model)]
    else:
        config = folder / "providers.json"  # JSON is YAML
        entry = {"name": "mock", "base_url": provider.url, "key": "${BENCH_PROVIDER_KEY}", "max_connections": places}
        config.write_text(json.dumps({"providers": [{**entry, "models": [{"id": model} for model in models]}]}))
        command += ["--config", str(config)]
        env = {**(env or {}), "BENCH_PROVIDER_KEY": provider.key}
    with started(command, log=folder / "brain.log", ready=lambda: _filled(ready), env=env):
        said = json.loads(ready.read_text())
        yield Brain(said["url"].rstrip("/"), said["api_key"], said["tenant_id"], said["pid"], folder / "brain")


def _filled(ready: Path) -> bool:
    return ready.exists() and ready.read_text().rstrip().endswith("}")


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
