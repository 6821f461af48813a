"""`ray.serve.llm`'s own OpenAI app around one model on this CPU: `python -m benchmarks.systems.serve_llm PORT FOLDER`.

With the same engine arguments, Serve options and proxy as the service's own deployment of that model.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.process_tree import started
from benchmarks.systems import free_port, healthy
from benchmarks.systems.environments import REPOSITORY

FASTAPI = "fastapi==0.136.3"
"""Its ingress (Ray 2.60) does not understand the routes of later ones: every request is refused with 400."""

FAST = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""What `brain up` sets too: without it, this system is slower."""
PORTS = (
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)


@contextlib.contextmanager
def start(folder: Path, model: dict[str, Any]) -> Iterator[str]:
    """Run it while the block runs; its base URL. `model`: as in the service's catalog, with its `vllm` options."""
    port = free_port()
    files = {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        **{name: str(free_port()) for name in PORTS},
    }
    variables = FAST | files | {"PYTHONPATH": os.pathsep.join((str(older_fastapi()), str(REPOSITORY)))}
    command = [sys.executable, "-m", "benchmarks.systems.serve_llm", str(port), json.dumps(model)]
    log = folder / "serve-llm.log"
    with started(command, log=log, ready=lambda: healthy(port, "/v1/models"), env=variables, start_s=400):
        yield f"http://127.0.0.1:{port}/v1"


def older_fastapi() -> Path:
    """A folder with the FastAPI that the app's ingress needs, to stand before the one of this environment."""
    folder = REPOSITORY / ".bench" / FASTAPI
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--target", str(folder), FASTAPI]
        subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: S603
    return folder


def main(port: int, entry: dict[str, Any]) -> None:
    """Serve until SIGTERM."""
    import ray
    from ray import serve
    from ray.serve.llm import LLMConfig, build_openai_app

    from deployments.local_engine import WAITS
    from deployments.local_llm import engine, environment, hardware, loading
    from domain.model import Model

    model = Model.model_validate(entry)
    assert model.vllm is not None
    config = LLMConfig(
        model_loading_config={"model_id": model.id, "model_source": model.vllm.source},
        engine_kwargs=engine(model.vllm),
        runtime_env={"env_vars": {**environment(model.vllm), WAITS: "0"}},  # as vLLM comes
        deployment_config={
            "num_replicas": 1,
            "max_ongoing_requests": model.vllm.max_ongoing_requests,
            "ray_actor_options": {"num_cpus": model.vllm.num_cpus},
        },
        **hardware(model.vllm),
        **loading(model.vllm),
    )
    ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build_openai_app({"llm_configs": [config]}), route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    os._exit(0)  # whoever started this ends the rest


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
