"""`python -m benchmarks hot-memory`: what 10,000 conversations in memory cost their hosts."""

import argparse
import asyncio
import re
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import asyncpg
from rich.console import Console

from benchmarks.comparison import expected_text, run
from benchmarks.fill import fill, new_conversations
from benchmarks.load import LoadGenerator
from benchmarks.process_tree import pss, rss
from benchmarks.systems import brain, mock
from benchmarks.systems.brain import Brain
from benchmarks.workloads import Workload

LOAD = Workload(clients=32, streamed=False, tokens=8)
GAUGE = re.compile(r"^(brain_conversations_hot(?:_bytes)?)\{[^}]*\} (\S+)$", re.MULTILINE)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--conversations", type=int, default=10_000)
    parser.add_argument("--messages", type=int, default=20, help="in each, counted with the turn that makes it hot")
    parser.set_defaults(run=measure_memory)


def measure_memory(chosen: argparse.Namespace, console: Console) -> None:
    """Fill, warm up, read the hosts' memory, make all conversations hot, read it again."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with mock.start(folder) as provider, brain.start(provider, folder) as service:
            cold = new_conversations(chosen.conversations)
            with console.status(f"filling {len(cold):,} conversations"):
                run(_fill(service, cold, chosen.messages - 2))
            run(_heat(service, cold[: LOAD.clients * 10]))  # pools and caches stand before the first reading
            before = _memory(service)
            with console.status(f"a turn in each of {len(cold):,} conversations"):
                wrong = run(_heat(service, cold[LOAD.clients * 10 :]))
            after = _memory(service)
            gauges = _gauges(service)
    heated = len(cold) - LOAD.clients * 10
    console.print(f"hosts' RSS {_mb(before[0])} → {_mb(after[0])}, PSS {_mb(before[1])} → {_mb(after[1])}")
    console.print(f"{(after[0] - before[0]) / heated / 1e3:.1f} kB a conversation of {chosen.messages} messages")
    console.print(f"as the hosts say: {gauges}; wrong replies: {wrong}")


async def _fill(service: Brain, conversations: Sequence[str], messages: int) -> None:
    database = await asyncpg.connect(service.admin_url)
    try:
        for start in range(0, len(conversations), 1000):
            await fill(database, service.tenant_id, conversations[start : start + 1000], messages)
    finally:
        await database.close()


async def _heat(service: Brain, conversations: Sequence[str]) -> int:
    """One turn in each conversation; gives the number of wrong replies."""
    client = LoadGenerator(service.chat(kept=True), LOAD, expected_text)
    left = list(conversations)
    wrong = 0

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal wrong
        while left:
            wrong += bool((await client.turn(session, left.pop())).wrong)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(worker(session) for _ in range(LOAD.clients)))
    return wrong


def _memory(service: Brain) -> tuple[int, int]:
    hosts = service.hosts()
    return rss(hosts), pss(hosts) or 0


def _gauges(service: Brain) -> dict[str, float]:
    """The sums over all replicas."""
    request = urllib.request.Request(f"{service.url}/metrics", headers=service.headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        found = GAUGE.findall(answer.read().decode())
    sums: dict[str, float] = {}
    for name, value in found:
        sums[name] = sums.get(name, 0) + float(value)
    return sums


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
