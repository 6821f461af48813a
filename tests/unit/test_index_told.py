"""A start looks whether what is indexed can be searched, and says where it cannot."""

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from domain.errors import OtherEmbedder
from serve_app.embedded import supervisor as module
from serve_app.embedded.folder import DataFolder
from serve_app.embedded.plan import Plan
from serve_app.embedded.reporter import Reporter
from serve_app.embedded.supervisor import Supervisor
from serve_app.settings import Settings

LEARNING = {"status": "down", "last_error": {"message": "it has not learned yet which embedder runs"}}
OTHER = {"status": "down", "last_error": {"message": str(OtherEmbedder.of("old@1", "new@2"))}}
FINE = {"status": "ok", "last_error": LEARNING["last_error"]}


class Service:
    """Answers `/health/detailed` with one after the other of `indexers`; None: the components cannot be told."""

    def __init__(self, indexers: list[dict[str, Any] | None]) -> None:
        self.asked: list[tuple[str, str, str]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked.append((self.path, self.headers["host"], self.headers["authorization"]))
                indexer = indexers.pop(0)
                body = json.dumps({"components": {"indexer": indexer}}).encode()
                self.send_response(200 if indexer else 503)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(module, "BETWEEN_LOOKS", 0.01)
    started: list[Service] = []

    def made(*indexers: dict[str, Any] | None) -> Service:
        started.append(Service(list(indexers)))
        return started[-1]

    yield made
    for service in started:
        service.server.shutdown()
        service.server.server_close()


async def told(service: Service, folder: Path) -> str:
    said = io.StringIO()
    plan = Plan("127.0.0.1", service.server.server_port, None, {}, None)
    reporter = Reporter(Console(file=said, highlight=False))
    await Supervisor(DataFolder(folder), Settings(), plan, reporter)._look_at_the_index("key")
    return said.getvalue()


async def test_another_embedder_is_told_once_it_is_known_with_what_to_do(serve: Any, tmp_path: Path) -> None:
    service = serve(None, LEARNING, LEARNING, OTHER)
    said = await told(service, tmp_path)
    assert "messages are indexed by old@1, and the embedder is new@2: run `brain reindex`" in said
    assert "searches in messages answer 409" in said and len(said.splitlines()) == 1
    assert len(service.asked) == 4 and service.asked[0][::2] == ("/health/detailed", "Bearer key")


async def test_nothing_is_said_where_all_is_well(serve: Any, tmp_path: Path) -> None:
    service = serve(LEARNING, FINE)
    assert await told(service, tmp_path) == "" and len(service.asked) == 2


async def test_a_service_that_never_answers_is_not_asked_for_ever(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOKS", 3)
    service = serve(None, None, None)
    assert await told(service, tmp_path) == "" and len(service.asked) == 3


async def test_it_asks_under_a_name_that_the_service_answers_to(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(FINE, FINE)
    monkeypatch.setenv("BRAIN_ALLOWED_HOSTS", "*.example.com")
    await told(service, tmp_path)
    monkeypatch.setenv("BRAIN_ALLOWED_HOSTS", "api.example.org")
    await told(service, tmp_path)
    assert [host for _, host, _ in service.asked] == ["brain.example.com", "api.example.org"]
