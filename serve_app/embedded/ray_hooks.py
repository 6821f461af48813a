"""What Ray's own processes load (named in their environment by `ray_node`) so that nothing listens beyond loopback."""

from typing import Any


def without_client_server(parameters: Any, head: bool) -> None:
    """RAY_START_HOOK: the Ray client server runs whatever it is sent, and nobody here needs it."""
    parameters.ray_client_server_port = None


def bind_loopback() -> None:
    """In each worker, before Serve is imported: replicas would take each other's calls on every interface."""
    from ray._common import tls_utils

    add_port = tls_utils.add_port_to_grpc_server

    def add_loopback_port(server: Any, address: str) -> Any:
        return add_port(server, address.replace("[::]:", "127.0.0.1:"))

    tls_utils.add_port_to_grpc_server = add_loopback_port
