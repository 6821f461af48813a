"""`python -m benchmarks overload`: 0.5 to 4 times the capacity, arriving by a clock, and what is left of the service.

The capacity is measured first, by clients in a closed loop with the generator's own cost on the same machine. Then
each load follows the one before it, and the last one is light again.
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import facts
from benchmarks.comparison import run
from benchmarks.fallback import quantile
from benchmarks.open_loop import Arrival, OpenLoop, Phase
from benchmarks.process_tree import below, rss
from benchmarks.systems import brain, mock
from benchmarks.systems.brain import Brain

HEADINGS = ("load", "offered/s", "good/s", "to peak", "refused/s", "refusal p50/p99 ms", "came back: admitted")
MORE = ("retry-after p50/max s", "first text p50/p99 ms", "RSS MB", "not sent", "answers")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--loads", type=lambda text: [float(part) for part in text.split(",")], default=[0.5, 1, 2, 4])
    parser.add_argument("--seconds", type=float, default=20, help="of each load (20)")
    parser.add_argument("--within", type=float, default=10, help="seconds in which a turn is good (10)")
    parser.add_argument("--places", type=int, help="calls at once at the provider: it is the bound, not the machine")
    parser.add_argument("--tokens", type=int, default=32, help="of a reply (32)")
    parser.add_argument("--clients", type=int, default=32, help="in the closed loop that finds the capacity (32)")
    parser.add_argument("--no-gate", action="store_true", help="with BRAIN_ADMISSION_WAIT_S=0")
    parser.set_defaults(run=measure_overload)


def measure_overload(chosen: argparse.Namespace, console: Console) -> None:
    """Start, load, print."""
    env = {"BRAIN_ADMISSION_WAIT_S": "0"} if chosen.no_gate else {}
    pace = f"mock,n={chosen.tokens},ttft=0,itl={30 if chosen.places else 0}"
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        before = set(below())
        with (
            mock.start(Path(name)) as provider,
            brain.start(provider, Path(name), env=env, places=chosen.places) as service,
        ):
            run(_measure(service, chosen, pace, before, console))
    console.print(facts.line(facts.machine()))


async def _measure(
    service: Brain, chosen: argparse.Namespace, model: str, before: set[psutil.Process], console: Console
) -> None:
    bound = (
        f"{chosen.places} places at the provider a replica" if chosen.places else "bound by the machine's processors"
    )
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        load = OpenLoop(service, session, model, seed=1)
        await load.prepare(100)
        await load.closed(8, 3)
        capacity = await load.closed(chosen.clients, 10)
        await load.prepare(1500)
        console.print(f"{bound}; capacity {capacity:.1f} turns/s ({chosen.clients} clients, closed loop)")
        phases: list[tuple[float, Phase, int]] = []
        cpu, began = time.process_time(), time.monotonic()
        for times in (*chosen.loads, min(chosen.loads)):
            memory = asyncio.create_task(_peak(before))
            phase = await load.phase(times * capacity, chosen.seconds)
            memory.cancel()
            phases.append((times, phase, await memory))
        share = (time.process_time() - cpu) / (time.monotonic() - began)
        await load.finish()
    _show(phases, chosen.within, console)
    usual = [one.first - one.due for one in phases[0][1].arrivals if one.first]
    again = _recovered(phases[-1][1], 2 * quantile(usual, 0.99))
    console.print(f"the generator took {share:.2f} processors; first texts are back {again:.1f} s after the load fell")


def _show(phases: list[tuple[float, Phase, int]], within: float, console: Console) -> None:
    seconds = [phase.closes - phase.opens for _, phase, _ in phases]
    arrived = [one for _, phase, _ in phases for one in phase.arrivals]
    goods = [phase.good(arrived, within) / s for (_, phase, _), s in zip(phases, seconds, strict=True)]
    peak = max(goods)
    names = [*(f"{times:g}" for times, _, _ in phases[:-1]), f"{phases[-1][0]:g} again"]
    table = Table(*HEADINGS, *MORE)
    for (_, phase, memory), s, good, name in zip(phases, seconds, goods, names, strict=True):
        refused = [one for one in phase.arrivals if one.refused]
        slow = [one.refusal_s for one in refused]
        first = [one.first - one.due for one in phase.arrivals if one.first]
        after = [one.retry_after for one in refused if one.retry_after is not None]
        offered = (len(phase.arrivals) + phase.not_sent) / s
        table.add_row(
            name,
            f"{offered:.1f}",
            f"{good:.1f}",
            f"{good / min(peak, offered):.2f}",
            f"{len(refused) / s:.1f}",
            f"{quantile(slow, 0.5) * 1000:.0f} / {quantile(slow, 0.99) * 1000:.0f}",
            f"{phase.admitted_then} of {phase.came_back}",
            f"{quantile(after, 0.5):.0f} / {max(after, default=0):.0f}",
            f"{quantile(first, 0.5) * 1000:.0f} / {quantile(first, 0.99) * 1000:.0f}",
            f"{memory / 1e6:,.0f}",
            str(phase.not_sent),
            ", ".join(f"{code}: {n}" for code, n in Counter(one.refused for one in refused).most_common(4)),
        )
    console.print(table)


def _recovered(phase: Phase, usual: float) -> float:
    """Seconds of the phase until no later arrival is refused or waits longer than `usual` for its first text."""
    late = [one.due - phase.opens for one in phase.arrivals if not _prompt(one, usual)]
    allowed = max(1, len(phase.arrivals) // 100)  # 99 of 100
    return 0.0 if len(late) < allowed else sorted(late)[-allowed]


def _prompt(one: Arrival, usual: float) -> bool:
    return one.first is not None and one.first - one.due <= usual


async def _peak(before: set[psutil.Process]) -> int:
    """Resident bytes of all that was started since, the most of it until cancelled. Sampled every two seconds."""
    most = 0
    try:
        while True:
            most = max(most, await asyncio.to_thread(rss, [one for one in below() if one not in before]))
            await asyncio.sleep(2)
    except asyncio.CancelledError:
        return most
