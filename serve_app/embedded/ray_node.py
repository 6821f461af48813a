"""Ray on one machine: a head node on loopback, with ports, folders and a token of its own: two stand side by side."""

import asyncio
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Mapping

from serve_app.edge_rules import EdgeRules
from serve_app.embedded import haproxy, leftovers
from serve_app.embedded.child import Child, Command
from serve_app.embedded.folder import DataFolder
from serve_app.embedded.ports import LOOPBACK, REPLICAS, Ports
from serve_app.embedded.refusal import Refusal
from serve_app.embedded.serve_rest import ServeRest, Unreachable

LOGICAL_CPUS = 16  # replicas reserve fractions of them; a small machine must not make one wait for ever
PATIENCE = 90.0  # seconds until a start has failed
OBJECT_STORE = 200_000_000  # bytes; messages are small

CONNECTIONS = 24_000  # of clients at once, WebSockets of two replicas among them
FILES, SPARE = 2.5, 200  # open files of HAProxy for each connection (and for a pipe of each fourth), and beside


def connections() -> int:
    """As many as may be open; HAProxy does not start where it may not open files enough."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return CONNECTIONS if most == resource.RLIM_INFINITY else max(1000, min(CONNECTIONS, int((most - SPARE) / FILES)))


class RayNode:
    """`ray start --head --block`. `environment` is what replicas see besides what this class sets."""

    name = "ray"

    def __init__(
        self,
        folder: DataFolder,
        ports: Ports,
        environment: Mapping[str, str],
        host: str,
        port: int,
        edge: EdgeRules | None = None,
    ) -> None:
        self.folder = folder
        self.edge = edge
        self.ports = ports
        self.host, self.port = host, port
        self.runtime = folder.runtime()
        self.token = folder.secret("ray-token")
        self.environment = {**environment, **self._ray_environment()}
        self.child: Child | None = None

    @property
    def dashboard(self) -> str:
        return f"http://{LOOPBACK}:{self.ports['dashboard']}"

    def rest(self) -> ServeRest:
        return ServeRest(LOOPBACK, self.ports["dashboard"], self.token)

    async def start(self) -> None:
        for name in ("r", "h"):
            (self.runtime / name).mkdir(exist_ok=True, mode=0o700)  # Ray opens its own folder to everyone
        if os.geteuid() == 0:
            self.runtime.chmod(0o711)  # PostgreSQL's user passes through it to its socket
        haproxy.write_program(self.runtime / "h" / "haproxy", (self.host, self.port), rules=self.edge)
        await asyncio.to_thread(self._forget_old_sessions)
        self.child = await Child.start(
            Command(
                self.name,
                [sys.executable, "-m", "ray.scripts.scripts", "start", *self._options()],
                self.folder.logs / "ray.log",
                self.folder.instance,
                self.environment,
                folder=self.folder.path,
            )
        )

    async def ready(self) -> None:
        """Wait until Serve's REST API answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                await asyncio.to_thread(self.rest().version)
                return
            except Unreachable as error:
                if self.child is None or not self.child.alive or time.monotonic() > deadline:
                    words = self.child.last_words() if self.child else ""
                    raise Refusal(f"Ray did not start ({words or error}): see {self.folder.logs / 'ray.log'}") from None
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.stop((signal.SIGTERM, 2.5))
        await self.clear()

    async def clear(self) -> None:
        """End every process of this node that outlived it."""
        await asyncio.to_thread(leftovers.end, self.folder.instance, self.name)

    def _options(self) -> list[str]:
        ports = self.ports
        return [
            "--head",
            "--block",
            "--disable-usage-stats",
            "--no-monitor",
            f"--node-ip-address={LOOPBACK}",
            f"--port={ports['gcs']}",
            f"--node-manager-port={ports['node_manager']}",
            f"--object-manager-port={ports['object_manager']}",
            "--min-worker-port=0",  # any free one
            "--max-worker-port=0",
            f"--dashboard-host={LOOPBACK}",
            f"--dashboard-port={ports['dashboard']}",
            f"--dashboard-agent-listen-port={ports['dashboard_agent_http']}",
            f"--dashboard-agent-grpc-port={ports['dashboard_agent_grpc']}",
            f"--runtime-env-agent-port={ports['runtime_env_agent']}",
            f"--metrics-export-port={ports['metrics_export']}",
            "--include-log-monitor=false",
            f"--num-cpus={LOGICAL_CPUS}",
            f"--object-store-memory={OBJECT_STORE}",
            f"--temp-dir={self.runtime / 'r' / 't'}",
        ]

    def _ray_environment(self) -> dict[str, str]:
        ports, files = self.ports, self.runtime / "h"
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder.secrets / "ray-token"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's switch for "this node's address is 127.0.0.1"
            "RAY_START_HOOK": "serve_app.embedded.ray_hooks.without_client_server",
            "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR": "serve_app.embedded.ray_hooks.begin_worker",
            "RAYLLM_ENABLE_WORKER_PROCESS_SETUP_HOOK": "0",  # it would take the place of the one above
            "RAY_prestart_worker_first_driver": "0",
            "RAY_worker_niceness": "0",  # by default 15: any other program on the machine would starve the replicas
            "DASHBOARD_METRIC_PORT": str(ports["dashboard_metrics"]),
            "AUTOSCALER_METRIC_PORT": str(ports["autoscaler_metrics"]),
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "2000",
            "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.25",  # each time round takes 4 ms of an idle machine
            "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",  # a dead proxy is replaced after three of these, not 3 x 10 s
            # By default 5: on a busy machine a proxy takes longer to import Serve, is killed, and the start fails.
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
            "RAY_SERVE_HAPROXY_BINARY_PATH": str(files / "haproxy"),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(files / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(files / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(files),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(files / "server-state"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(files / "metrics.sock"),
            "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports["haproxy_metrics"]),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(ports["haproxy_stats"]),
            "RAY_SERVE_HAPROXY_NBTHREAD": "1",
            "RAY_SERVE_HAPROXY_MAXCONN": str(connections()),
            # HAProxy turns to this port while no replica is up: two instances must not share it
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports["fallback_http"]),
            "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports["fallback_grpc"]),
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.ingress.edge:middlewares",
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports.replicas),
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports.replicas + REPLICAS),
            "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(ports.replicas + REPLICAS),
            "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(ports.replicas + 2 * REPLICAS),
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
            "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "1",
        }

    def _forget_old_sessions(self) -> None:
        """Keep the logs of the last session only, and no HAProxy's files."""
        sessions = sorted((self.runtime / "r" / "t").glob("session_2*"), key=lambda path: path.stat().st_mtime)
        old_proxies = [path for path in (self.runtime / "h").iterdir() if path.is_dir()]
        for path in (*sessions[:-1], *old_proxies):
            shutil.rmtree(path, ignore_errors=True)
