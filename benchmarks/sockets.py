"""`python -m benchmarks sockets`: WebSockets: memory of an idle one, a word to a thousand, a turn beside its stream.

A whole service, and its clients in this process, which share its cores. Idle sockets go straight to the port of one
ingress replica; all others through HAProxy to both.
"""

import argparse
import asyncio
import gc
import http.client
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import facts
from benchmarks.comparison import run
from benchmarks.socket_clients import LeanSocket, asked, open_socket
from benchmarks.systems import brain, mock
from benchmarks.targets import data_of, events

TOGETHER = 50  # sockets that are opened at once
FINAL = ("turn.completed", "turn.failed", "turn.cancelled")
KIB = 1024


@dataclass(slots=True)
class Figures:
    """`idle`: KiB of the replica's own memory for each socket. Times in milliseconds; `told`: of each word at each
    socket; of turns the first text and the whole."""

    idle: float = 0
    sockets: int = 0
    proxied: float = 0
    replica: float = 0
    told: list[float] = field(default_factory=list)
    lost: int = 0
    shares: list[int] = field(default_factory=list)
    turns: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {"WebSocket": [], "SSE": []})


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--idle", type=int, default=3000, help="idle sockets on one ingress replica (3000)")
    parser.add_argument("--listeners", type=int, default=1000, help="sockets that watch a conversation (1000)")
    parser.add_argument("--words", type=int, default=50, help="of typing that are told to them (50)")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between them (0.5)")
    parser.add_argument("--turns", type=int, default=60, help="over WebSocket and SSE each, one by one (60)")
    parser.add_argument("--tokens", type=int, default=64, help="of a reply (64)")
    parser.set_defaults(run=measure)


def measure(chosen: argparse.Namespace, console: Console) -> None:
    """All three, on one service."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with (
        tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name,
        mock.start(Path(name)) as provider,
        brain.start(provider, Path(name)) as service,
    ):
        figures = run(_measured(service, chosen, console))
    console.print(_table(figures))
    console.print(facts.line(facts.machine()))


async def _measured(service: brain.Brain, chosen: argparse.Namespace, console: Console) -> Figures:
    figures = Figures()
    async with aiohttp.ClientSession(service.url, headers=service.headers) as session:
        with console.status("turns"):
            await _turns(service, session, chosen, figures)
        with console.status("a word to many"):
            await _told(service, session, chosen, figures)
        with console.status("idle sockets"):
            await _idle(service, chosen, figures)
    return figures


def address(url: str) -> str:
    return url.replace("http", "ws", 1) + "/api/v1/ws"


async def _idle(service: brain.Brain, chosen: argparse.Namespace, figures: Figures) -> None:
    replica = service.replicas("Ingress")[0]
    straight = address(f"http://127.0.0.1:{_port(replica)}")
    first = await _opened(straight, service.key, TOGETHER)  # what is made once is there before
    before = await _settled(replica)
    sockets = await _opened(straight, service.key, chosen.idle)
    after = await _settled(replica)
    figures.sockets = sum(not one.closed for one in sockets)
    figures.idle, figures.replica = (after - before) / KIB / max(1, figures.sockets), after / KIB / KIB
    await asyncio.gather(*(asked(one, "ping") for one in sockets[:: max(1, len(sockets) // 100)]))
    for one in (*first, *sockets):
        one.close()


def _port(replica: psutil.Process) -> int:
    """Where the replica answers HTTP: the port that HAProxy asks for its health."""
    found = [c for c in replica.net_connections("tcp") if c.status in ("ESTABLISHED", "LISTEN")]
    listening = {c.laddr.port for c in found if c.status == "LISTEN"}
    for port in sorted(listening):
        if _answers(port):
            return port
    raise RuntimeError(f"no port of {replica.pid} answers: {sorted(listening)}")


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


async def _settled(replica: psutil.Process) -> int:
    """Its own memory, once that has stopped growing."""
    last = 0
    for _ in range(20):
        await asyncio.sleep(1)
        now: int = replica.memory_full_info().uss
        if abs(now - last) < 256 * KIB:
            return now
        last = now
    return last


async def _opened(url: str, key: str, number: int) -> list[LeanSocket]:
    made: list[LeanSocket] = []
    while len(made) < number:
        more = min(TOGETHER, number - len(made))
        made += await asyncio.gather(*(open_socket(url, key) for _ in range(more)))
    return made


async def _told(
    service: brain.Brain, session: aiohttp.ClientSession, chosen: argparse.Namespace, figures: Figures
) -> None:
    conversation = await _conversation(session)
    speaker, *listeners = await _opened(address(service.url), service.key, chosen.listeners + 1)
    for start in range(0, len(listeners), TOGETHER):
        some = listeners[start : start + TOGETHER]
        await asyncio.gather(*(asked(one, "subscribe", conversation_id=conversation) for one in some))
    figures.shares = [_held(one) for one in service.replicas("Ingress")]
    spoke = heard = 0.0

    def hear(text: bytes, at: float) -> None:
        nonlocal heard
        if b'"typing"' in text:
            heard += 1
            figures.told.append((at - spoke) * 1000)

    for one in listeners:
        one.heard = hear
    gc.collect()
    gc.disable()
    for number in range(-3, chosen.words):
        if number == 0:
            figures.told.clear()
            heard = 0
        spoke = time.perf_counter()
        speaker.tell("typing", conversation_id=conversation, typing=bool(number % 2))
        await asyncio.sleep(chosen.pause)
    await asyncio.sleep(2)
    gc.enable()
    figures.lost = chosen.words * len(listeners) - len(figures.told)
    for one in (speaker, *listeners):
        one.close()
    await asyncio.sleep(1)


def _held(replica: psutil.Process) -> int:
    found = replica.net_connections("tcp")
    listening = {c.laddr.port for c in found if c.status == "LISTEN"}
    return sum(c.status == "ESTABLISHED" and c.laddr.port in listening for c in found)


async def _turns(
    service: brain.Brain, session: aiohttp.ClientSession, chosen: argparse.Namespace, figures: Figures
) -> None:
    model = f"mock,n={chosen.tokens},itl=0"
    (socket,) = await _opened(address(service.url), service.key, 1)
    conversations = [await _conversation(session) for _ in range(2 * (chosen.turns + 5))]
    for number in range(-5, chosen.turns):
        for kind in ("WebSocket", "SSE"):
            conversation = conversations.pop()
            if kind == "SSE":
                taken = await _by_stream(session, conversation, model)
            else:
                taken = await _by_socket(socket, conversation, model)
            if number >= 0:
                figures.turns[kind].append(taken)
    socket.close()


async def _by_socket(socket: LeanSocket, conversation: str, model: str) -> tuple[float, float]:
    began, first = time.perf_counter(), 0.0
    ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def hear(text: bytes, at: float) -> None:
        nonlocal first
        frame = orjson.loads(text)
        kind = frame["event"]["type"] if frame["op"] == "event" else ""
        if kind == "message.delta" and not first:
            first = at
        if kind in FINAL:
            ended.set_result(at)

    socket.heard = hear
    socket.tell("send", conversation_id=conversation, content="hello", model=model)
    at = await ended
    return (first - began) * 1000, (at - began) * 1000


async def _by_stream(session: aiohttp.ClientSession, conversation: str, model: str) -> tuple[float, float]:
    began, first, rest = time.perf_counter(), 0.0, b""
    body = {"content": "hello", "model": model, "stream": True}
    async with session.post(f"/api/v1/conversations/{conversation}/messages", json=body) as answer:
        async for piece in answer.content.iter_any():
            at = time.perf_counter()
            rest += piece
            for event in events(rest):
                if (data := data_of(event)) and orjson.loads(data)["type"] == "message.delta" and not first:
                    first = at
            rest = rest.rpartition(b"\n\n")[2]
    return (first - began) * 1000, (time.perf_counter() - began) * 1000


async def _conversation(session: aiohttp.ClientSession) -> str:
    async with session.post("/api/v1/conversations", json={}) as answer:
        made: dict[str, Any] = await answer.json()
    return str(made["id"])


def _table(figures: Figures) -> Table:
    table = Table("", "measured", "must", "aim")
    memory = f"{figures.idle:.1f} KiB at {figures.sockets} (the replica: {figures.replica:.0f} MiB)"
    table.add_row("memory of an idle socket on one ingress replica", memory, "≤ 40 KiB at 3,000", "15 KiB at 10,000")
    told = sorted(figures.told)
    if told:
        spread = f"p50 {told[len(told) // 2]:.0f} ms, p99 {told[int(len(told) * 0.99)]:.0f} ms"
        sockets = " + ".join(map(str, figures.shares))
        where = f"typing told to sockets on two replicas ({sockets} connections), {len(told)} times heard"
        table.add_row(where, f"{spread}, lost {figures.lost}", "p99 ≤ 250 ms", "50 ms")
    socket, stream = (
        [statistics.median(one[at] for one in figures.turns[kind]) for at in (0, 1)] for kind in ("WebSocket", "SSE")
    )
    words = f"first text {socket[0]:.1f} ms, whole {socket[1]:.1f} ms"
    table.add_row("a turn over WebSocket, p50", words, "", "")
    ratio = f"first text × {socket[0] / stream[0]:.2f}, whole × {socket[1] / stream[1]:.2f}"
    table.add_row("against SSE", f"{stream[0]:.1f} and {stream[1]:.1f} ms: {ratio}", "", "")
    return table
