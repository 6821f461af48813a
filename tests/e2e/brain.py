"""A running Brain as a test sees it: its HTTP API, and its processes from the outside."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

from serve_app.embedded.folder import DataFolder
from serve_app.embedded.postgres import OWNER, Postgres
from serve_app.embedded.redis import Redis
from tests.conftest import wait_until
from tests.servers.given import servers

ROOT = Path(__file__).parents[2]
BRAIN = Path(sys.executable).parent / "brain"
PROVIDER_KEY = "canary-of-a-providers-key-f3a91c"  # these two must stand in no log: the session's end looks for them
PASSWORD = "canary of a user's password 7b20e4"


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment without what a test run of the Brain must not inherit."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BRAIN_", "RAY_"))}
    return {**kept, **extra}


def run(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The `brain` command, to its end."""
    return subprocess.run(
        [str(BRAIN), *map(str, arguments)],
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=60,
    )


class Brain:
    """One `brain up`, started on `data`. `arguments` go to the command, or to the `module` that stands in for it."""

    def __init__(
        self,
        data: Path,
        port: int,
        arguments: list[str],
        environment: dict[str, str] | None = None,
        module: str | None = None,
    ) -> None:
        self.data, self.port, self.arguments = data, port, arguments
        self.program = [sys.executable, "-m", module] if module else [str(BRAIN)]
        self.environment = environment or {}
        self.database: str | None = None  # its own one, where servers of the system are used
        if (given := servers()) and "BRAIN_DATABASE_URL" not in self.environment:
            self.database = given.make_database()
            self.environment = {**given.settings(self.database), **self.environment}
        self.ready_file = data.with_name(data.name + ".ready")
        self.log = data.with_name(data.name + ".log")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 180) -> "Brain":
        self.ready_file.unlink(missing_ok=True)
        command = [*self.program, "up", "--data", str(self.data), "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--ready-file", str(self.ready_file), *self.arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=clean_environment(**self.environment),
                cwd="/",
            )
        deadline = time.monotonic() + timeout
        while not self.ready_file.exists():
            assert self.process.poll() is None, f"brain up ended: {self.log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"not ready: {self.log.read_text()[-3000:]}"
            time.sleep(0.1)
        ready = json.loads(self.ready_file.read_text())
        assert self.ready_file.stat().st_mode & 0o777 == 0o600
        self.url, self.key, self.tenant = ready["url"], ready["api_key"], ready["tenant_id"]
        self.http = self.client(self.key)
        return self

    def client(self, key: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def stop(self, timeout: float = 20) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    # The API.

    def conversation(self, **body: Any) -> str:
        answer = self.http.post("/api/v1/conversations", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def send(
        self, conversation: str, content: str, headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        path = f"/api/v1/conversations/{conversation}/messages"
        return self.http.post(path, json={"content": content, **body}, headers=headers)

    def stream(self, conversation: str, content: str, **body: Any) -> "Stream":
        path = f"/api/v1/conversations/{conversation}/messages"
        return Stream(self, "POST", path, {"content": content, "stream": True, **body})

    def events(self, turn: str, after: str | None = None) -> "Stream":
        return Stream(self, "GET", f"/api/v1/turns/{turn}/events", headers={"Last-Event-ID": after} if after else {})

    def messages(self, conversation: str) -> list[dict[str, Any]]:
        answer = self.http.get(f"/api/v1/conversations/{conversation}/messages", params={"limit": 100})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"])

    def turn(self, turn: str) -> dict[str, Any]:
        return dict(self.http.get(f"/api/v1/turns/{turn}").json())

    def ended(self, turn: str, timeout: float = 30) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            try:
                found = self.turn(turn)
            except httpx.HTTPError:
                return None
            return found if found.get("status") in ("completed", "failed", "cancelled") else None

        return dict(wait_until(look, timeout, what=f"the end of {turn}"))

    def check(self, conversation: str) -> list[dict[str, Any]]:
        """The stored messages, after checking what must always hold of them."""
        found = self.messages(conversation)
        assert [message["seq"] for message in found] == list(range(1, len(found) + 1))
        replies = [message["turn_id"] for message in found if message["role"] == "assistant"]
        assert len(replies) == len(set(replies))
        return found

    # The processes.

    def processes(self, title: str = "") -> list[psutil.Process]:
        """This Brain's processes, besides `brain up` itself, whose title contains `title`; with a title also those of
        the servers of the system that it uses."""
        given = servers() if title and self.database else None
        found = given.processes(title) if given else []
        for process in psutil.process_iter():
            try:
                if title in " ".join(process.cmdline()) and self._is_ours(process):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def replicas(self, deployment: str) -> list[psutil.Process]:
        return self.processes(f"ServeReplica:brain:{deployment}")

    def serving(self, deployment: str, number: int) -> bool:
        return len(self.replicas(deployment)) >= number

    def _is_ours(self, process: psutil.Process) -> bool:
        if process.pid == (self.process.pid if self.process else -1) or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.environ().get("BRAIN_INSTANCE") == DataFolder(self.data).instance

    @property
    def owner_url(self) -> str:
        if (given := servers()) and self.database:
            return given.owner_url(self.database, direct=True)
        folder = DataFolder(self.data)
        return Postgres(folder, folder.recall("ports")["single"]["postgres"]).url(OWNER)

    @property
    def redis_url(self) -> str:
        if self.database:
            return self.environment["BRAIN_REDIS_URL"]
        folder = DataFolder(self.data)
        return Redis(folder, folder.recall("ports")["single"]["redis"]).url

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """As the owner of the database."""
        with psycopg.connect(self.owner_url) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


class Stream:
    """Server-sent events, read in a thread, so that a test can act in mid-stream."""

    def __init__(
        self, brain: Brain, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.error: Exception | None = None
        self.status: int | None = None
        self.headers: httpx.Headers | None = None
        self._closed = threading.Event()
        self._changed = threading.Condition()
        self._arguments = (brain.url, brain.key, method, path, body, headers or {})
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        url, key, method, path, body, headers = self._arguments
        try:
            with (
                httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client,
                client.stream(method, path, json=body, headers=headers) as answer,
            ):
                self.status, self.headers = answer.status_code, answer.headers
                event: dict[str, Any] = {}
                for line in answer.iter_lines():
                    if self._closed.is_set():
                        return
                    if line.startswith("id: "):
                        event["id"] = line[4:]
                    elif line.startswith("event: "):
                        event["event"] = line[7:]
                    elif line.startswith("data: "):
                        event |= json.loads(line[6:])
                    elif not line and event:
                        with self._changed:
                            self.events.append(event)
                            self.times.append(time.monotonic())
                            self._changed.notify_all()
                        event = {}
        except httpx.HTTPError as error:
            self.error = error
        finally:
            with self._changed:
                self._changed.notify_all()

    def until(self, condition: Any, timeout: float = 30) -> "Stream":
        deadline = time.monotonic() + timeout
        with self._changed:
            while not condition(self):
                assert self._thread.is_alive(), f"the stream ended: {self.status} {self.error} {self.events[-2:]}"
                assert self._changed.wait(deadline - time.monotonic()), "the condition did not come"
        return self

    def deltas(self, number: int) -> "Stream":
        return self.until(lambda stream: sum(e["type"] == "message.delta" for e in stream.events) >= number)

    def finish(self, timeout: float = 60) -> "Stream":
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "the stream did not end"
        return self

    def leave(self) -> None:
        """Disconnect in mid-stream."""
        self._closed.set()

    @property
    def turn(self) -> str:
        return str(self.until(lambda stream: stream.events).events[0]["turn_id"])

    @property
    def text(self) -> str:
        return text_of(self.events)

    @property
    def longest_pause(self) -> float:
        return max((b - a for a, b in zip(self.times, self.times[1:], strict=False)), default=0.0)


def text_of(events: list[dict[str, Any]]) -> str:
    """The text that a client has after these events."""
    text = ""
    for event in events:
        if event["type"] == "turn.reset":
            text = ""
        elif event["type"] == "message.delta":
            text += event["text"]
    return text


def check_ids(events: list[dict[str, Any]]) -> None:
    """Ids without a gap and without a repeat, attempt by attempt."""
    expected: tuple[int, int] | None = None
    for event in events:
        turn, attempt, n = event["id"].split("/")
        assert (event["turn_id"], event["attempt"], event["n"]) == (turn, int(attempt), int(n))
        place = (int(attempt), int(n))
        if expected is not None and place != expected:
            assert place == (expected[0] + 1, 1) and event["type"] == "turn.reset", (place, expected)
        expected = (place[0], place[1] + 1)


def resumed(brain: Brain, stream: Stream, timeout: float = 60) -> list[dict[str, Any]]:
    """All events of a stream up to its end, over as many connections as it takes."""
    events = list(stream.finish(timeout).events)
    deadline = time.monotonic() + timeout
    while not events or not events[-1]["type"].startswith(("turn.completed", "turn.failed", "turn.cancelled")):
        assert time.monotonic() < deadline
        try:
            more = brain.events(events[0]["turn_id"], events[-1]["id"]).finish(timeout)
            events += more.events
        except httpx.HTTPError:
            continue
        time.sleep(0.05)
    return events


@contextmanager
def mock_provider(folder: Path, host: str = "127.0.0.1", key: str = "k") -> Iterator[str]:
    """The mock provider in a process of its own; its URL."""
    ready = folder / "mock.ready"
    ready.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "benchmarks.mock_provider",
        "--host",
        host,
        "--port",
        "0",
        "--ready-file",
        str(ready),
        "--key",
        key,
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        wait_until(ready.exists, what="the mock provider")
        yield str(json.loads(ready.read_text())["url"])
    finally:
        process.terminate()
        process.wait()
