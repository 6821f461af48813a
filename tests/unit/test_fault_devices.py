"""What campaigns put between a process and its machine does what it says."""

import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.faults.proxy import Proxy
from tests.faults.shim import Shim

ASK = """
import os, sys, time
for line in sys.stdin:
    if line == "time\\n":
        print(time.time(), flush=True)
    else:
        file = os.open(line.strip(), os.O_RDWR | os.O_CREAT)
        try:
            os.pwrite(file, b"x", 0)
            began = time.monotonic()
            os.fsync(file)
            print(time.monotonic() - began, flush=True)
        except OSError as error:
            print(error.errno, flush=True)
        os.close(file)
"""


class Asked:
    """A process that says what time it is, and how writing to a file goes."""

    def __init__(self, shim: Shim) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", ASK],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, **shim.environment},
        )

    def say(self, line: str) -> float:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(line + "\n")
        return float(self.process.stdout.readline())


@pytest.fixture
def shim(tmp_path) -> Shim:
    return Shim(tmp_path)


@pytest.fixture
def asked(shim) -> Iterator[Asked]:
    one = Asked(shim)
    yield one
    one.process.kill()
    one.process.communicate()


def test_a_clock_jumps_and_comes_back(shim, asked):
    if not shim.there:
        pytest.skip("no C compiler")
    assert abs(asked.say("time") - time.time()) < 60
    shim.clock(3, asked.process.pid, -7200.0)
    assert abs(asked.say("time") + 7200 - time.time()) < 60
    shim.clock(3, 0, 0.0)
    assert abs(asked.say("time") - time.time()) < 60


def test_only_the_write_ahead_log_finds_no_space(shim, asked, tmp_path):
    if not shim.there:
        pytest.skip("no C compiler")
    (tmp_path / "pg_wal").mkdir()
    segment, other = str(tmp_path / "pg_wal" / "segment"), str(tmp_path / "other")
    shim.disk(full=True)
    assert asked.say(segment) == 28  # ENOSPC
    assert asked.say(other) < 28
    shim.disk()
    assert asked.say(segment) < 28


def test_a_slow_disk_takes_its_time(shim, asked, tmp_path):
    if not shim.there:
        pytest.skip("no C compiler")
    shim.disk(delay=0.2)
    assert asked.say(str(tmp_path / "file")) >= 0.2


def test_a_blocked_process_says_nothing_until_it_is_over(shim, asked):
    asked.say("time")
    shim.block(asked.process.pid, 0.7)
    longest, until = 0.0, time.monotonic() + 10
    while longest < 0.6:  # it may be asked more than once before the signal reaches it
        assert time.monotonic() < until, "it was never blocked"
        began = time.monotonic()
        asked.say("time")
        longest = time.monotonic() - began


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with suppress(OSError):
            while data := self.request.recv(100):
                self.server.heard.append(data)  # type: ignore[attr-defined]
                self.request.sendall(data)


@pytest.fixture
def echo() -> Iterator[tuple[Proxy, list[bytes]]]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        server.heard = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        proxy = Proxy(lambda: server.server_address[1], seed=1)
        yield proxy, server.heard  # type: ignore[attr-defined]
        proxy.close()
        server.shutdown()


def ask(connection: socket.socket, data: bytes) -> bytes:
    """What comes back; nothing where the connection broke."""
    try:
        connection.sendall(data)
        return connection.recv(100)
    except ConnectionError:
        return b""


@pytest.mark.parametrize("mode", ["lose answers", "lose requests"])
def test_a_connection_is_cut_with_what_it_carried(echo, mode):
    proxy, heard = echo
    proxy.mode = mode
    answered = 0
    for number in range(200):
        with socket.create_connection(("127.0.0.1", proxy.port), 5) as connection:
            answered += ask(connection, b"%d" % number) == b"%d" % number
    assert 0 < proxy.cut == 200 - answered
    assert len(heard) == (200 if mode == "lose answers" else answered)


def test_a_silent_connection_says_everything_later(echo):
    proxy, _ = echo
    with socket.create_connection(("127.0.0.1", proxy.port), 5) as connection:
        assert ask(connection, b"a") == b"a"
        proxy.mode = "silent"
        connection.sendall(b"b")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(100)
        proxy.mode = "pass"
        connection.settimeout(5)
        assert connection.recv(100) == b"b"


def test_a_proxy_to_nothing_breaks_off(tmp_path):
    def nowhere() -> int:
        raise OSError

    proxy = Proxy(nowhere, seed=1)
    with socket.create_connection(("127.0.0.1", proxy.port), 5) as connection:
        assert ask(connection, b"a") == b""
    proxy.close()
