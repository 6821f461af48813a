"""The load balancer before the nodes: HAProxy, as docs/operations.md asks for one."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from serve_app.embedded.haproxy import bundled
from tests.conftest import wait_until
from tests.nodes.service import answers

PORT = 8080
CONFIG = """\
defaults
    mode http
    timeout connect 2s
    timeout check 2s
    timeout client 1h
    timeout server 1h
    option redispatch 1
    retries 3
    retry-on conn-failure
    option srvtcpka
    srvtcpka-idle 5s
    srvtcpka-intvl 2s
    srvtcpka-cnt 3
listen brain
    bind 127.0.0.1:{port}
    balance roundrobin
    option httpchk
    http-check connect
    http-check send meth GET uri /-/healthz
    http-check expect status 200
    http-check connect
    http-check send meth GET uri /health/ready
    http-check expect status 200
    default-server check inter 1s fastinter 250ms fall 2 rise 2
"""


@contextmanager
def balancer(base: Path, addresses: Sequence[str]) -> Iterator[str]:
    """The URL that clients use. TCP's keepalive ends the connections of a node that is cut off;
    those of a node that only drains go on (`shutdown-sessions` would cut them)."""
    servers = [f"    server n{n} {address}:8000 tcp-ut 10s" for n, address in enumerate(addresses)]
    config = base / "balancer.cfg"
    config.write_text(CONFIG.format(port=PORT) + "\n".join(servers) + "\n")
    with (base / "balancer.log").open("wb") as log:
        process = subprocess.Popen([str(bundled()), "-db", "-f", str(config)], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{PORT}"
    try:
        wait_until(lambda: process.poll() is not None or answers(f"{url}/health/ready"), what="the load balancer")
        yield url
    finally:
        process.terminate()
        process.wait()
