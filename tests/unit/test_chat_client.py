"""`brain chat` against a small real service that cuts its streams."""

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from serve_app.cli import main
from serve_app.cli.chat_answer import Answer
from serve_app.cli.chat_client import Client
from serve_app.cli.chat_screen import Screen
from serve_app.embedded.refusal import Refusal

KEY, CONVERSATION, TURN = "k" * 40, "conv_1", "turn_1"
WORDS = ("It ", "left ", "the ", "wärehouse\n", "today — ", "✓")
DONE = ("turn.completed", {"message": {"content": "".join(WORDS), "model": "m"}, "usage": {"total_tokens": 7}})
DELTAS = [("message.delta", {"text": word}) for word in WORDS]


def stream(*events: tuple[str, dict[str, Any]], attempt: int = 1, first: int = 1) -> list[tuple[str, bytes]]:
    """Events as (id, bytes)."""
    told = []
    for n, (kind, data) in enumerate(events, first):
        body = json.dumps({"type": kind, "turn_id": TURN, "attempt": attempt, "n": n, **data}, ensure_ascii=False)
        name = f"{TURN}/{attempt}/{n}"
        told.append((name, f"id: {name}\nevent: {kind}\ndata: {body}\n\n".encode()))
    return told


PLAIN = stream(("turn.accepted", {"user_message": {}}), *DELTAS, DONE)
LENGTH = sum(len(written) for _, written in PLAIN)


class Service:
    """Has one turn, whose events are `told`. Each connection is cut after the next number of bytes in `cuts`; 0 cuts
    it before the answer begins."""

    def __init__(self, told: list[tuple[str, bytes]], *cuts: int) -> None:
        self.told, self.cuts = told, list(cuts)
        self.keys: list[str | None] = []
        self.after: list[str | None] = []
        self.app = web.Application()
        self.app.router.add_post("/api/v1/conversations/{id}/messages", self.send)
        self.app.router.add_get("/api/v1/turns/{id}/events", self.resume)
        self.app.router.add_post("/api/v1/conversations", self.create)
        self.app.router.add_get("/api/v1/models", self.models)
        self.app.router.add_get("/api/v1/conversations/{id}/messages", self.unknown)

    async def create(self, request: web.Request) -> web.Response:
        return web.json_response({"id": CONVERSATION}, status=201)

    async def models(self, request: web.Request) -> web.Response:
        if request.headers["authorization"] != f"Bearer {KEY}":
            return web.json_response({"error": {"message": "no"}}, status=401)
        return web.json_response({"data": [{"id": "m"}]})

    async def unknown(self, request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "there is no such conversation"}}, status=404)

    async def send(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.keys.append(request.headers.get("idempotency-key"))
        return await self.play(request, 0)

    async def resume(self, request: web.Request) -> web.StreamResponse:
        after = request.headers.get("last-event-id")
        self.after.append(after)
        return await self.play(request, [name for name, _ in self.told].index(after or "") + 1)

    async def play(self, request: web.Request, start: int) -> web.StreamResponse:
        written = b"".join(one for _, one in self.told[start:])
        cut = self.cuts.pop(0) if self.cuts else len(written)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        assert request.transport is not None
        if cut:
            await response.prepare(request)
            await response.write(written[:cut])
        if cut < len(written):
            request.transport.abort()
        return response


async def at_once(_: float) -> None:
    """No pause."""


async def answered(service: Service, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What one message's answer printed, and what was said about it."""
    async with TestServer(service.app) as server:
        screen = Screen()
        client = Client(str(server.make_url("")), KEY, screen.note, at_once)
        await client.open()
        try:
            await Answer(screen, client.cancel).show(client.send(CONVERSATION, "where is it?", "auto"))
        finally:
            await client.close()
    printed = capsys.readouterr()
    return printed.out, printed.err


@pytest.mark.parametrize("cut", range(1, LENGTH, 23))
async def test_wherever_the_stream_is_cut_the_text_is_whole_and_printed_once(
    cut: int, capsys: pytest.CaptureFixture[str]
) -> None:
    service = Service(PLAIN, cut)
    out, err = await answered(service, capsys)
    assert out == "".join(WORDS) + "\n"
    assert "trying again" in err and len(err.splitlines()) == 1
    assert len(set(service.keys)) == 1


async def test_it_goes_on_after_the_last_event_that_it_has_read(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [len(written) for _, written in PLAIN]
    service = Service(PLAIN, sum(sizes[:3]) + 5, sizes[3] + 1)
    out, _ = await answered(service, capsys)
    assert out == "".join(WORDS) + "\n"
    assert service.after == [f"{TURN}/1/3", f"{TURN}/1/4"]
    assert len(service.keys) == 1


async def test_a_post_without_an_answer_is_repeated_with_its_key(capsys: pytest.CaptureFixture[str]) -> None:
    service = Service(PLAIN, 0, 0)
    out, _ = await answered(service, capsys)
    assert out == "".join(WORDS) + "\n"
    assert service.keys[0] and service.keys == [service.keys[0]] * 3


async def test_a_reset_begins_the_text_anew_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    first = stream(("turn.accepted", {"user_message": {}}), *DELTAS[:2])
    again = stream(("turn.reset", {"reason": "lost"}), *DELTAS, DONE, attempt=2)
    out, err = await answered(Service(first + again, len(first[0][1])), capsys)
    assert out == "It left \n" + "".join(WORDS) + "\n"
    assert "the answer begins anew: lost" in err


async def test_a_stream_without_deltas_still_gives_the_reply(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = await answered(Service(stream(("turn.accepted", {"user_message": {}}), DONE)), capsys)
    assert out == "".join(WORDS) + "\n"


async def test_it_gives_up_in_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Refusal, match="the connection broke"):
        await answered(Service(PLAIN, *[0] * 100), capsys)


@pytest.fixture
def url() -> Iterator[str]:
    """A service in a thread of its own, for the whole command."""
    loop = asyncio.new_event_loop()
    server = TestServer(Service(PLAIN, 300, LENGTH).app)
    loop.run_until_complete(server.start_server())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield str(server.make_url(""))
    asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def chat(monkeypatch: pytest.MonkeyPatch, *options: str, lines: str = "hello\n") -> int:
    monkeypatch.setattr("sys.argv", ["brain", "chat", *options])
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_each_line_of_a_pipe_is_a_message(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(monkeypatch, "--url", url, "--api-key", KEY, lines="hello\n\nagain") == 0
    assert capsys.readouterr().out == ("".join(WORDS) + "\n") * 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--api-key", "x" * 40], "does not accept this API key"),
        (["--api-key", KEY, "--conversation", "conv_2"], "there is no such conversation"),
        (["--api-key", KEY, "--url", "http://127.0.0.1:9"], "no service answers at http://127.0.0.1:9"),
        (["--api-key", KEY, "--url", "here"], "is not the address of a service"),
        (["--url", "http://example.com"], "no API key for http://example.com"),
    ],
)
def test_what_the_user_can_solve_is_one_line(
    options: list[str], said: str, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BRAIN_API_KEY", raising=False)
    assert chat(monkeypatch, "--url", url, *options) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1
