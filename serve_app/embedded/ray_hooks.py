"""What Ray's own processes load (named in their environment by `ray_node`): nothing listens beyond loopback, and
workers are there sooner."""

import gc
import os
import threading
from typing import Any

IMPORTING = 10.0  # seconds that a worker takes to import and to begin, or longer where the machine is busy


def without_client_server(parameters: Any, head: bool) -> None:
    """RAY_START_HOOK: the Ray client server runs whatever it is sent, and nobody here needs it."""
    parameters.ray_client_server_port = None


def begin_worker() -> None:
    """In each worker, before Serve is imported."""
    collect_later()
    bind_loopback()


def collect_later() -> None:
    """No garbage is looked for at first: imports leave none, and a sixth of their time would go into looking."""
    gc.disable()
    os.register_at_fork(after_in_child=gc.enable)  # a child has no thread of its parent's that would
    later = threading.Timer(IMPORTING, gc.enable)
    later.daemon = True
    later.start()


def bind_loopback() -> None:
    """Replicas would take each other's calls on every interface."""
    from ray._common import tls_utils

    add_port = tls_utils.add_port_to_grpc_server

    def add_loopback_port(server: Any, address: str) -> Any:
        return add_port(server, address.replace("[::]:", "127.0.0.1:"))

    tls_utils.add_port_to_grpc_server = add_loopback_port
