"""The bare two-hop Ray Serve application of `benchmarks.passthrough`, in a Ray instance of its own."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.process_tree import started
from benchmarks.systems import Provider, free_port
from benchmarks.targets import ChatCompletions


@contextlib.contextmanager
def start(provider: Provider, folder: Path) -> Iterator[ChatCompletions]:
    """Run it while the block runs. Serve's flags and HAProxy's ports are set for this instance alone."""
    port, files, ready = free_port(), folder / "haproxy", folder / "passthrough.ready"
    files.mkdir(exist_ok=True)
    env = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(files / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(files / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(files),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(files / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        "RAY_USAGE_STATS_ENABLED": "0",
        "BENCH_PROVIDER_URL": provider.url,
        "BENCH_PROVIDER_KEY": provider.key,
    }
    command = [sys.executable, "-m", "benchmarks.passthrough", "--port", str(port), "--ready-file", str(ready)]
    command += ["--folder", str(folder / "r")]
    with started(command, log=folder / "passthrough.log", ready=ready.exists, env=env, stop_s=2):
        yield ChatCompletions(f"http://127.0.0.1:{port}/v1", "none")
