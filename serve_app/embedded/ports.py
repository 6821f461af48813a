"""TCP ports of one data folder: chosen once, kept while they are free, outside the range of outgoing connections."""

import random
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from serve_app.embedded.folder import DataFolder
from serve_app.embedded.refusal import Refusal

LOOPBACK = "127.0.0.1"
FIRST, LAST = 10_240, 32_000  # below Linux's ephemeral ports
SINGLE = (
    "postgres",
    "redis",
    "gcs",
    "node_manager",
    "object_manager",
    "dashboard",
    "dashboard_agent_http",
    "dashboard_agent_grpc",
    "dashboard_metrics",
    "autoscaler_metrics",
    "runtime_env_agent",
    "metrics_export",
    "haproxy_metrics",
    "haproxy_stats",
    "fallback_http",
    "fallback_grpc",
)
REPLICAS = 100  # HTTP ports of ingress replicas, and as many for gRPC
BLOCK = 256


@dataclass(frozen=True, slots=True)
class Ports:
    """`replicas`: the first port of two ranges of `REPLICAS` each, HTTP and gRPC."""

    single: Mapping[str, int]
    replicas: int

    def __getitem__(self, name: str) -> int:
        return self.single[name]


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def choose(folder: DataFolder, avoid: Iterable[int] = ()) -> Ports:
    """The folder's ports, those of the last start where they are still free. Call it when nothing of it runs.

    `avoid`: ports that will be used by others, such as the API's own.
    """
    avoided = set(avoid)
    stored = folder.recall("ports") or {}
    base = stored.get("base")
    if not isinstance(base, int) or any(not base <= port < base + BLOCK for port in stored.get("single", {}).values()):
        base, stored = _free_block(avoided), {}
    spare = iter(range(base, base + BLOCK - 2 * REPLICAS))
    single: dict[str, int] = {}
    kept = dict(stored.get("single", {}))
    for name in SINGLE:
        port = kept.get(name)
        if port is None or port in avoided or not is_free(port):
            taken = {*single.values(), *kept.values(), *avoided}
            port = next((p for p in spare if p not in taken and is_free(p)), None)
        if port is None:  # a crowded block
            folder.remember("ports", None)
            return choose(folder, avoided | set(range(base, base + BLOCK)))
        single[name] = port
    folder.remember("ports", {"base": base, "single": single})
    return Ports(single, base + BLOCK - 2 * REPLICAS)


def _free_block(avoided: set[int]) -> int:
    bases = list(range(FIRST, LAST - BLOCK, BLOCK))
    random.shuffle(bases)
    for base in bases:
        block = range(base, base + BLOCK)
        if avoided.isdisjoint(block) and all(is_free(port) for port in block):
            return base
    raise Refusal(f"no {BLOCK} free TCP ports in a row between {FIRST} and {LAST}: end what listens there")
