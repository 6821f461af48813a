"""`python -m benchmarks rollouts`: new code under load, beside a plain Serve application that is rolled out with it."""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.comparison import run
from benchmarks.rollout_clients import Seen, work
from benchmarks.systems import Provider, brain, mock
from benchmarks.systems.brain import Brain
from benchmarks.targets import ChatCompletions
from serve_app.embedded.folder import DataFolder

PLAIN = "/plain"
ROWS = ("this service, kept turns", "this service, nothing kept", "a plain Serve application")
PATIENCE = 240.0  # seconds for a rollout
BEFORE = 10.0  # seconds of load before the first rollout, and after each


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--times", type=int, default=2, help="rollouts, one after another (2)")
    parser.add_argument("--clients", type=int, default=4, help="of each row (4)")
    parser.add_argument("--seed", type=int, default=1, help="of the replies' lengths (1)")
    parser.set_defaults(run=roll_out)


def roll_out(chosen: argparse.Namespace, console: Console) -> None:
    """Both applications share the cluster, the load and the moment; print a row for each."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with mock.start(folder) as provider, brain.start(provider, folder) as service:
            config = _with_plain(_deployed(service)["deployed_app_config"], provider)
            _roll(service, config, 0)
            seen, seconds = run(_work(service, config, chosen))
    table = Table("", "replies", "failed", "told to come again", "sent again", "resumed", "longest silence, s", "why")
    for label, one in zip(ROWS, seen, strict=True):
        why = ", ".join(f"{number} × {what}" for what, number in one.why.items())
        counts = (one.replies, one.failed, one.again, one.repeated, one.resumed)
        table.add_row(label, *map(str, counts), f"{one.longest:.1f}", why)
    console.print(table)
    console.print(f"rollouts: {', '.join(f'{one:.0f} s' for one in seconds)}")


async def _work(
    service: Brain, config: list[dict[str, Any]], chosen: argparse.Namespace
) -> tuple[list[Seen], list[float]]:
    stop, seconds = asyncio.Event(), []
    plain = ChatCompletions(f"{service.url}{PLAIN}/v1", "none")
    targets = (service.chat(kept=True), service.chat(kept=False), plain)
    working = asyncio.gather(*(work(target, chosen.clients, stop, chosen.seed) for target in targets))
    await asyncio.sleep(BEFORE)
    for number in range(1, chosen.times + 1):
        began = time.monotonic()
        await asyncio.to_thread(_roll, service, config, number)
        seconds.append(time.monotonic() - began)
        await asyncio.sleep(BEFORE)
    stop.set()
    return list(await working), seconds


def _with_plain(ours: dict[str, Any], provider: Provider) -> list[dict[str, Any]]:
    arguments = {"url": provider.url, "key": provider.key}
    plain = {"name": "plain", "route_prefix": PLAIN, "import_path": "benchmarks.passthrough:build", "args": arguments}
    return [ours, plain]


def _roll(service: Brain, applications: list[dict[str, Any]], number: int) -> None:
    """Deploy both as another version, and wait until no replica of the one before is left."""
    before = _replicas(service)
    marked = [{**one, "runtime_env": {"env_vars": {"RELEASE": str(number)}}} for one in applications]
    config = {"proxy_location": "HeadOnly", "http_options": {"port": int(service.url.rsplit(":", 1)[1])}}
    _call(service, "PUT", {**config, "applications": marked})
    deadline = time.monotonic() + PATIENCE
    while _replicas(service) & before or not _running(service):
        if time.monotonic() > deadline:
            raise RuntimeError("the rollout did not end")
        time.sleep(0.5)


def _running(service: Brain) -> bool:
    return all(one["status"] == "RUNNING" for one in _call(service)["applications"].values())


def _replicas(service: Brain) -> set[str]:
    return {
        replica["replica_id"]
        for application in _call(service)["applications"].values()
        for deployment in application["deployments"].values()
        for replica in deployment["replicas"]
    }


def _deployed(service: Brain) -> dict[str, Any]:
    return dict(_call(service)["applications"]["brain"])


def _call(service: Brain, method: str = "GET", body: Any = None) -> dict[str, Any]:
    folder = DataFolder(service.data)
    url = f"http://127.0.0.1:{folder.recall('ports')['single']['dashboard']}/api/serve/applications/"
    headers = {"authorization": f"Bearer {(folder.secrets / 'ray-token').read_text()}"}
    answer = httpx.request(method, url, headers=headers, json=body, timeout=60).raise_for_status()
    return dict(json.loads(answer.text)) if answer.text else {}
