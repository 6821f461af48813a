"""The program in HAProxy's place, run over a configuration as Serve renders it."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from serve_app.cli import app
from serve_app.edge_rules import EdgeRules, Proxies, networks
from serve_app.embedded import haproxy
from tests.conftest import free_port, wait_until

RENDERED = """\
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
    option redispatch 1
    retry-on conn-failure
    errorfile 502 /nowhere/500.http
    errorfile 503 /nowhere/500.http
    errorfile 504 /nowhere/500.http
frontend prometheus
    bind :{metrics}
    mode http
frontend http_frontend
    bind 127.0.0.1:{port}
    use_backend app
backend app
    # Enable HTTP connection reuse for better performance
    http-reuse always
    server one 127.0.0.1:{replica}
listen stats
  bind *:{stats}
  stats enable
"""

LENGTH = b"content-length:"


class Replica:
    """Answers each request with its body, and leaves the connection open; `dropping`: so many it ends unanswered."""

    def __init__(self) -> None:
        self.dropping = self.connections = self.requests = 0
        self.heads: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(ConnectionError), connection, connection.makefile("rb") as lines:
            while head := b"".join(iter(lines.readline, b"\r\n")):
                length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(LENGTH)), 0)
                body = lines.read(length)
                self.requests += 1
                self.heads.append(head.decode().lower())
                if self.dropping:
                    self.dropping -= 1
                    return
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
                )

    def close(self) -> None:
        with suppress(OSError):  # it is closed already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def __enter__(self) -> "Replica":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def replica() -> Iterator[Replica]:
    with Replica() as replica:
        yield replica


@pytest.fixture
def config(tmp_path: Path, replica: Replica) -> Path:
    """As Serve renders it, once the program has run over it."""
    echo = tmp_path / "real"
    echo.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    echo.chmod(0o700)
    config = tmp_path / "with space" / "haproxy.cfg"
    config.parent.mkdir()
    ports = {"metrics": free_port(), "port": free_port(), "stats": free_port(), "replica": replica.port}
    config.write_text(RENDERED.format(**ports))
    program = tmp_path / "haproxy"
    rules = EdgeRules(proxies=Proxies(networks("127.0.0.9,10.0.0.0/8,::1")), body_wait=1)
    haproxy.write_program(program, ("127.0.0.2", ports["port"]), echo, rules)
    run = subprocess.run([program, "-db", "-f", config, "-dR"], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["-db", "-f", str(config), "-dR"]
    assert [path.name for path in config.parent.iterdir()] == ["haproxy.cfg"]
    return config


@pytest.fixture
def running(config: Path) -> Iterator[str]:
    """The edited configuration in HAProxy; the API's address."""
    process = subprocess.Popen([haproxy.bundled(), "-db", "-f", config], stderr=subprocess.PIPE, text=True)
    address = next(line.split()[1] for line in config.read_text().splitlines() if "bind 127.0.0.2" in line)
    host, port = address.split(":")

    def listens() -> bool:
        assert process.poll() is None, process.stderr and process.stderr.read()
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    try:
        wait_until(listens, what="HAProxy")
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


def test_only_the_frontend_listens_elsewhere(config: Path) -> None:
    binds = [line.strip() for line in config.read_text().splitlines() if line.strip().startswith("bind")]
    assert [bind.rsplit(":", 1)[0] for bind in binds] == ["bind 127.0.0.1", "bind 127.0.0.2", "bind 127.0.0.1"]


def test_a_cluster_keeps_serves_ports_and_gets_the_rest(config: Path, tmp_path: Path) -> None:
    rendered = RENDERED.format(metrics=9101, port=8000, stats=8404, replica=30000)
    config.write_text(rendered)
    done = CliRunner().invoke(app, ["haproxy", str(tmp_path / "program")])
    assert done.exit_code == 0, done.output
    subprocess.run([tmp_path / "program", "-c", "-f", config], check=True, capture_output=True)
    edited = config.read_text()
    assert [line for line in edited.splitlines() if "bind" in line] == [
        line for line in rendered.splitlines() if "bind" in line
    ]
    assert "retry-on conn-failure empty-response" in edited and "http-reuse never" in edited


def test_headers_that_serve_obeys_are_removed_first(config: Path) -> None:
    frontend = config.read_text().split("frontend http_frontend\n")[1].splitlines()
    rules = [line.strip() for line in frontend if line.strip().startswith("http-request")]
    removed = rules[: len(haproxy.OBEYED_BY_SERVE) + 1 + len(haproxy.SPOKEN_FOR) + 1]
    assert all(rule.startswith("http-request del-header") for rule in removed)
    assert not any(rule.startswith("http-request del-header") for rule in rules[len(removed) :])


def test_each_request_has_a_connection_of_its_own(running: str, replica: Replica) -> None:
    with httpx.Client(base_url=running) as client:
        assert [client.post("/", content=b"x").status_code for _ in range(3)] == [200] * 3
    assert replica.connections == 3


def test_a_request_without_an_answer_is_sent_again_where_that_is_safe(running: str, replica: Replica) -> None:
    with httpx.Client(base_url=running) as client:
        replica.dropping = 1
        assert client.post("/", content=b"x", headers={"idempotency-key": "k"}).text == "x"
        replica.dropping = 1
        assert client.get("/").status_code == 200
    assert replica.requests == 4


def test_a_request_that_may_have_been_carried_out_is_not_sent_again(running: str, replica: Replica) -> None:
    replica.dropping = 1
    answer = httpx.post(running, content=b"x")
    assert (answer.status_code, replica.requests) == (503, 1)
    assert answer.headers["retry-after"] == "1"
    assert len(answer.headers["x-request-id"]) > 30
    assert answer.json()["error"]["code"] == "unavailable"


def test_where_nobody_listens_the_answer_is_the_same(running: str, replica: Replica) -> None:
    replica.close()
    answer = httpx.post(running, content=b"x")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_only_a_trusted_proxy_says_for_whom_it_asks(running: str, replica: Replica) -> None:
    said = {
        "x-forwarded-for": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "forwarded": "for=6.6.6.6",
        "x-real-ip": "6.6.6.6",
    }
    for address, words in (("127.0.0.1", []), ("127.0.0.9", ["x-forwarded-for: 6.6.6.6"])):
        transport = httpx.HTTPTransport(local_address=address)
        with httpx.Client(transport=transport) as client:
            assert client.get(running, headers=said).status_code == 200
        head = replica.heads[-1].split("\r\n")
        assert [line for line in head if line.startswith("x-forwarded-for")] == [*words, f"x-forwarded-for: {address}"]
        others = [line for line in head if line.startswith(("x-forwarded-proto", "forwarded:", "x-real-ip"))]
        assert len(others) == (3 if words else 0)


def test_no_answer_names_the_software_that_gave_it(running: str, replica: Replica) -> None:
    assert "server" not in httpx.get(running).headers
    replica.close()
    assert "server" not in httpx.get(running).headers


def test_a_request_that_comes_too_slowly_or_cannot_be_read_is_refused(running: str, replica: Replica) -> None:
    host, port = running.removeprefix("http://").split(":")
    for piece, status, code in (
        (b"GET / HTTP/1.1\r\nhost: a\r\n", b"408", b""),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nx", b"408", b"body_too_slow"),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 40_000 + b"\r\n\r\n", b"400", b""),
        (b"nonsense\r\n\r\n", b"400", b""),
    ):
        with socket.create_connection((host, int(port)), timeout=30) as connection, connection.makefile("rb") as lines:
            connection.sendall(piece)
            answer = lines.read()
        assert answer.startswith(b"HTTP/1.1 " + status) and code in answer, answer
    assert replica.requests == 0
