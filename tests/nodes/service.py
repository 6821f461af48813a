"""A Ray cluster over several machines, started as docs/operations.md says, with the service on it."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from serve_app.embedded.haproxy import write_program
from serve_app.embedded.serve_rest import DeployRefused, ServeRest, Unreachable
from tests.conftest import wait_until
from tests.e2e.brain import ROOT, clean_environment
from tests.faults.world import HASTY
from tests.nodes.space import HEAD, Machine, Space, folder_of
from tests.nodes.stores import Stores

GCS_PORT, DASHBOARD_PORT = 6379, 8265
PATIENCE = 240.0  # seconds for a start, of which two cores take most
REPLICAS = {
    "Ingress": 2,
    "ConversationHost": 2,
    "HostedLLM": 2,
    "IntentClassifier": 1,
    "IntentTrainer": 1,
    "Embedder": 1,
    "Indexer": 1,
    "Relay": 1,
    "Tools": 1,
}
ON_EVERY_NODE = ("Ingress", "ConversationHost", "HostedLLM")


@dataclass(slots=True)
class Service:
    """`base`: the folder of everything. `provider`: the mock's URL. `worked`: how many calls of clients have ended."""

    space: Space
    base: Path
    stores: Stores
    provider: str
    started: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    worked: Callable[[], int] = lambda: 0

    @property
    def head(self) -> Machine:
        return self.space.machines[HEAD]

    @property
    def rest(self) -> ServeRest:
        return ServeRest("127.0.0.1", DASHBOARD_PORT, self.stores.token.read_text())

    def start_node(self, machine: Machine) -> None:
        """`ray start` there; the first one is the head."""
        options = [f"--node-ip-address={machine.address}", "--num-cpus=4", "--object-store-memory=200000000"]
        if machine is self.head:
            options += ["--head", f"--port={GCS_PORT}", "--dashboard-host=127.0.0.1", "--include-log-monitor=false"]
        else:
            options += [f"--address={self.head.address}:{GCS_PORT}"]
        program = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *options]
        command = 'mount --bind "$0" /tmp && ulimit -n "$(ulimit -Hn)" && exec "$@"'
        with (self.base / f"{machine.name}.log").open("ab") as log:
            self.started[machine.name] = subprocess.Popen(
                [*machine.inside, "sh", "-c", command, str(folder_of(machine, self.base)), *program],
                env=self._environment(),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )

    def kill_node(self, machine: Machine) -> None:
        machine.kill()
        self.started.pop(machine.name).wait()

    def deploy(self) -> None:
        dashboard = f"http://127.0.0.1:{DASHBOARD_PORT}"
        wait_until(lambda: self._alive() and answers(dashboard), PATIENCE, what="the dashboard")
        wait_until(lambda: self._alive() and len(self.nodes()) == len(self.started), PATIENCE, what="all nodes")
        wait_until(self._deployed, PATIENCE, 2.0, what="Serve's consent")

    def _deployed(self) -> bool:
        """Serve's first controller may have died on a machine this busy; whoever deploys asks again."""
        try:
            self.rest.deploy(self.configuration())
        except (DeployRefused, Unreachable) as error:
            print(f"         deploying again: {error}", flush=True)
            return False
        return True

    def configuration(self) -> dict[str, Any]:
        """configs/production.yaml, of a size for this machine: each node has one replica of what answers."""
        config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "production.yaml").read_text())
        for deployment in config["applications"][0]["deployments"]:
            name = deployment["name"]
            del deployment["autoscaling_config"]
            deployment |= {"num_replicas": REPLICAS[name], "ray_actor_options": {"num_cpus": 0.5}}
            if name in ON_EVERY_NODE:
                deployment["max_replicas_per_node"] = 1
            if "user_config" in deployment:
                deployment["user_config"] = self._catalog()
        return config

    def wait(self, machines: list[Machine]) -> None:
        """Until each of these has its replicas, and its port answers that it is ready."""
        addresses = {machine.address for machine in machines}
        for name in ON_EVERY_NODE:
            wait_until(lambda name=name: addresses <= self.places(name), PATIENCE, 0.5, what=f"{name} on {addresses}")
        for address in addresses:
            wait_until(lambda url=f"http://{address}:8000": answers(f"{url}/health/ready"), PATIENCE, 0.5, what="ready")

    def places(self, deployment: str) -> set[str]:
        """The addresses of the nodes where a replica of it runs."""
        try:
            application = self._get("/api/serve/applications/")["applications"]["brain"]
            replicas = application["deployments"][deployment]["replicas"]
        except (httpx.HTTPError, KeyError):
            return set()
        return {one["node_ip"] for one in replicas if one["state"] == "RUNNING"}

    def joined(self, machine: Machine) -> None:
        """Wait until Ray knows of the node."""
        wait_until(lambda: machine.address in self.nodes(), PATIENCE, 0.5, what=f"the node {machine.name}")

    def nodes(self) -> dict[str, str]:
        """The ids of the living nodes, by address."""
        try:
            found = self._get("/api/v0/nodes")["data"]["result"]["result"]
        except (httpx.HTTPError, KeyError):
            return {}
        return {node["node_ip"]: node["node_id"] for node in found if node["state"] == "ALIVE"}

    def drain(self, machine: Machine, seconds: int) -> None:
        """`ray drain-node`. Raises CalledProcessError where Ray refuses."""
        options = [f"--address={self.head.address}:{GCS_PORT}", f"--node-id={self.nodes()[machine.address]}"]
        options += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=maintenance"]
        options += [f"--deadline-remaining-seconds={seconds}"]
        subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "drain-node", *options],
            env=self._environment(),
            check=True,
            capture_output=True,
        )

    def _alive(self) -> bool:
        for name, process in self.started.items():
            assert process.poll() is None, f"{name} ended: {(self.base / f'{name}.log').read_text()[-2000:]}"
        return True

    def _get(self, path: str) -> Any:
        headers = {"authorization": f"Bearer {self.stores.token.read_text()}"}
        return (
            httpx.get(f"http://127.0.0.1:{DASHBOARD_PORT}{path}", headers=headers, timeout=10).raise_for_status().json()
        )

    def _environment(self) -> dict[str, str]:
        lines = (ROOT / "configs" / "cluster.env").read_text().splitlines()
        given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        return clean_environment(
            **given,
            RAY_AUTH_TOKEN_PATH=str(self.stores.token),
            RAY_SERVE_HAPROXY_BINARY_PATH=str(self._haproxy()),
            BRAIN_MASTER_KEY="5" * 64,
            BRAIN_DATABASE_URL=self.stores.database,
            BRAIN_REDIS_URL=self.stores.journal,
            BRAIN_DATA="/tmp/brain",
            MOCK_KEY="k",
            PYTHONPATH=os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        )

    def _haproxy(self) -> Path:
        program = self.base / "haproxy"
        write_program(program)
        return program

    def _catalog(self) -> dict[str, Any]:
        models = [{"id": "small", "upstream": "mock,n=8"}, {"id": "mock*"}]
        provider = {"name": "mock", "base_url": self.provider, "key": "${MOCK_KEY}", "timeouts": HASTY}
        provider |= {"models": models, "breaker": {"failures": 1_000_000}}
        return {"providers": [provider], "routing": {"default": "small"}}


def answers(url: str) -> bool:
    """With success."""
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
