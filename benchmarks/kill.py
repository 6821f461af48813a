"""`python -m benchmarks kill`: kill -9 of a conversation's host, or of the model's replica, as a client sees it."""

import argparse
import asyncio
import dataclasses
import random
import statistics
import tempfile
import time
from pathlib import Path

import aiohttp
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.comparison import expected_text, run
from benchmarks.follow import Followed, follow
from benchmarks.load import LoadGenerator
from benchmarks.systems import brain, mock
from benchmarks.systems.brain import Brain
from benchmarks.workloads import Workload

TOKENS, GAP_MS = 300, 20
PROBE = Workload(clients=1, streamed=False, tokens=4)


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """One kill."""

    killed: int
    turn: Followed
    content: str
    calls: int


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--times", type=int, default=5, help="kills, one after another (5)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the kills, anywhere in the stream (1)")
    parser.add_argument(
        "--which",
        choices=("owner", "other", "all", "model"),
        default="owner",
        help="the conversation's host, the other one, both, or the replica that holds the model's stream (owner)",
    )
    parser.set_defaults(run=kill_hosts)


def kill_hosts(chosen: argparse.Namespace, console: Console) -> None:
    """Kill, follow, and print one line a kill."""
    headings = ("kill", "after s", "processes", "longest pause ms", "last text to end ms", "connections", "attempts")
    title = f"kill -9 ({chosen.which}) in a stream of {TOKENS} tokens, {GAP_MS} ms apart"
    table = Table(*headings, "provider calls", "events", "verdict", title=title, title_justify="left")
    drawn, seen = random.Random(chosen.seed), []
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with mock.start(folder) as provider, brain.start(provider, folder) as service:
            replicas = len(service.hosts())
            for number in range(1, chosen.times + 1):
                with console.status(f"kill {number} of {chosen.times}"):
                    _wait_for_hosts(service, replicas)
                    mock.reset(provider)
                    content = f"Kill {number}: what can you tell me about my order?"
                    after = drawn.uniform(0.2, TOKENS * GAP_MS / 1000)
                    killed, turn = run(_one(service, content, after, chosen.which))
                    calls = mock.stats(provider)["by_user"].get(content, 0)
                seen.append(turn)
                table.add_row(str(number), f"{after:.1f}", *_values(Outcome(killed, turn, content, calls)))
    console.print(table)
    for what, times in (
        ("longest pause", [turn.longest_pause for turn in seen]),
        ("last text to the end", [turn.closing for turn in seen]),
    ):
        console.print(f"{what}: p50 {statistics.median(times) * 1000:.0f} ms, longest {max(times) * 1000:.0f} ms")


async def _one(service: Brain, content: str, after: float, which: str) -> tuple[int, Followed]:
    async with aiohttp.ClientSession(headers=service.headers) as session:
        conversation = await service.chat(kept=True).open_thread(session)
        if which == "model":
            chosen = service.replicas("HostedLLM")
        else:
            owner, hosts = await _owner(service, session, conversation), service.hosts()
            chosen = {"owner": [owner], "other": [host for host in hosts if host != owner], "all": hosts}[which]
        body = {"content": content, "model": f"mock,n={TOKENS},itl={GAP_MS}", "stream": True}
        stream = asyncio.create_task(follow(session, service.url, conversation, body))
        await asyncio.sleep(after)
        for process in chosen:
            process.kill()
        return len(chosen), await asyncio.wait_for(stream, 120)


async def _owner(service: Brain, session: aiohttp.ClientSession, conversation: str) -> psutil.Process:
    """The host that works when this conversation is talked to: the one whose processor time grows most."""
    client = LoadGenerator(service.chat(kept=True), PROBE, expected_text)
    hosts = service.hosts()
    before = [sum(host.cpu_times()[:2]) for host in hosts]
    for _ in range(40):
        await client.turn(session, conversation)
    grown = [sum(host.cpu_times()[:2]) - was for host, was in zip(hosts, before, strict=True)]
    return hosts[grown.index(max(grown))]


def _wait_for_hosts(service: Brain, replicas: int) -> None:
    deadline = time.monotonic() + 60
    while (len(service.hosts()) < replicas or not service.replicas("HostedLLM")) and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(3)  # the routers learn of the new replica


def _values(outcome: Outcome) -> tuple[str, ...]:
    turn = outcome.turn
    verdict = "complete" if turn.text == expected_text(outcome.content, TOKENS) else f"WRONG TEXT ({len(turn.text)})"
    if turn.ended != "turn.completed":
        verdict = turn.ended or "no end"
    if turn.gaps:
        verdict += f", numbers not in sequence: {turn.gaps[:3]}"
    pause = f"{turn.longest_pause * 1000:.0f}"
    counts = (turn.connections, turn.attempts, outcome.calls, turn.events)
    return str(outcome.killed), pause, f"{turn.closing * 1000:.0f}", *map(str, counts), verdict
