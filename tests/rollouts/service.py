"""A whole service, and `serve deploy` on it as an operator would."""

import copy
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from serve_app.embedded.folder import DataFolder
from serve_app.embedded.serve_config import local_config
from tests.conftest import wait_until
from tests.e2e.brain import Brain, clean_environment
from tests.rollouts.release import Release

PATIENCE = 240.0  # seconds for a rollout, of which two cores take most
SAME = 30  # answers in a row that a change has reached every ingress


class RolloutFailed(Exception):
    """Serve could not carry the deployment out; its words."""


@dataclass(slots=True)
class Service:
    """`folder`: for files. `provider`: the mock's URL. `catalog`: providers and routing as at the start.

    `calls`: how many calls of clients end between two steps, `worked`: how many have ended. `serves`: the `runtime_env`
    of the code that was rolled out last.
    """

    brain: Brain
    folder: Path
    provider: str
    catalog: dict[str, Any]
    calls: int = 200
    worked: Callable[[], int] = lambda: 0
    serves: dict[str, Any] = field(default_factory=dict)

    def config(
        self,
        release: Release | None = None,
        catalog: dict[str, Any] | None = None,
        replicas: dict[str, int] | None = None,
        grace: float | None = None,
    ) -> dict[str, Any]:
        """What runs after the start, with other code, another catalog, or other numbers of replicas, by deployment.

        `grace`: seconds for what a replica has begun when it is stopped.
        """
        config = local_config(self.brain.port, copy.deepcopy(catalog or self.catalog))
        application = config["applications"][0]
        if release is not None:
            application["runtime_env"] = release.runtime_env
        for deployment in application["deployments"]:
            if grace is not None:
                deployment["graceful_shutdown_timeout_s"] = grace
            deployment["num_replicas"] = (replicas or {}).get(deployment["name"], deployment["num_replicas"])
        return config

    def deploy(self, config: dict[str, Any]) -> None:
        path = self.folder / "deployed.yaml"
        path.write_text(yaml.safe_dump(config))
        data = DataFolder(self.brain.data)
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(data.secrets / "ray-token")}
        done = subprocess.run(
            [str(Path(sys.executable).parent / "serve"), "deploy", str(path), "-a", self.dashboard],
            env=clean_environment(**token),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-2000:]

    def rolled(self, config: dict[str, Any]) -> None:
        """Deploy, and wait until every replica is one of this configuration. Raises `RolloutFailed`."""
        application = config["applications"][0]
        changed = application.get("runtime_env", {}) != self.serves
        before = self.replicas()
        self.deploy(config)
        wanted = {one["name"]: one["num_replicas"] for one in application["deployments"]}

        def done() -> bool:
            found = self.application()
            if found.get("status") == "DEPLOY_FAILED":
                raise RolloutFailed(_words(found))
            now = self.replicas(found)
            if found.get("status") != "RUNNING" or {name: len(ids) for name, ids in now.items()} != wanted:
                return False
            return not changed or all(not ids & before.get(name, set()) for name, ids in now.items())

        wait_until(done, PATIENCE, 0.5, what="the rollout")
        self.serves = application.get("runtime_env", {})

    def pause(self) -> None:
        """Let clients work on what there is now."""
        until = self.worked() + self.calls
        wait_until(lambda: self.worked() >= until, PATIENCE, 0.05, what=f"{self.calls} calls of clients")

    def refused(self, config: dict[str, Any]) -> str:
        """Deploy what must fail; Serve's words."""
        try:
            self.rolled(config)
        except RolloutFailed as failed:
            return str(failed)
        raise AssertionError("what must not be rolled out was")

    def reached(self, path: str, told: Any) -> None:
        """Wait until each ingress answers so: `told` is of the answer, given as (status, body)."""

        def same() -> bool:
            return all(told(*self.asked(path)) for _ in range(SAME))

        wait_until(same, PATIENCE, 0.2, what=f"the same answer of {path}")

    def asked(self, path: str) -> tuple[int, Any]:
        """Over a connection of its own, so that any ingress may answer."""
        headers = {"authorization": f"Bearer {self.brain.key}"}
        try:
            answer = httpx.get(f"{self.brain.url}{path}", headers=headers, timeout=30)
            return answer.status_code, answer.json()
        except (httpx.HTTPError, ValueError):
            return 0, None

    def versions(self, release: str) -> None:
        """Wait until that version answers, and no other."""
        self.reached("/health", lambda status, body: status == 200 and body["version"] == release)

    def migrate(self, release: Release, *command: str) -> None:
        """`brain db …` of that release's code on the running database."""
        program = [sys.executable, "-c", "from serve_app.cli import main; main()", "db", *command]
        given = {"BRAIN_DATABASE_ADMIN_URL": self.brain.owner_url, "PYTHONPATH": str(release.tree)}
        done = subprocess.run(
            program, env=clean_environment(**given), cwd="/", capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr[-2000:]

    @property
    def dashboard(self) -> str:
        ports = DataFolder(self.brain.data).recall("ports")["single"]
        return f"http://127.0.0.1:{ports['dashboard']}"

    def application(self) -> dict[str, Any]:
        token = (DataFolder(self.brain.data).secrets / "ray-token").read_text()
        deadline = time.monotonic() + 30
        while True:
            try:
                headers = {"authorization": f"Bearer {token}"}
                answer = httpx.get(f"{self.dashboard}/api/serve/applications/", headers=headers, timeout=20)
                return dict(answer.raise_for_status().json()["applications"].get("brain", {}))
            except httpx.HTTPError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def replicas(self, application: dict[str, Any] | None = None) -> dict[str, set[str]]:
        """The ids of all replicas that are not gone, by deployment."""
        found = application or self.application()
        return {
            name: {replica["replica_id"] for replica in one["replicas"]}
            for name, one in found.get("deployments", {}).items()
        }


def _words(application: dict[str, Any]) -> str:
    words = [application.get("message") or ""]
    words += [one["message"] for one in application.get("deployments", {}).values() if one.get("message")]
    return " ".join(words)
