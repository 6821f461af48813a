"""`python -m benchmarks fairness`: what one tenant at 50 times its share costs the others, fairly queued and not.

A `HostedLLM` in this process calls the mock provider, with a bound on calls at once. The bound over the time that a
call takes, measured first, is the capacity; a tenant's share is its part of that. Calls arrive by a clock, whether or
not earlier ones have ended, and the first token counts from when a call was due. The flood begins when the others are
under way, and all that follows is measured. Without fair queueing means: all tenants as one.
"""

import argparse
import asyncio
import gc
import os
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import facts
from benchmarks.comparison import run
from benchmarks.systems import Provider, mock
from deployments.hosted_llm import HostedLLM
from domain.errors import BrainError, JournalUnavailable
from domain.generation import GenerationRequest, Outcome
from domain.model import parse_catalog
from serve_app.process import collect_seldom

FLOOD = "flood"
WARM_UP = 5  # calls, one after another, before anything is measured


class NoJournal:
    """Every method says that Redis is away."""

    def __getattr__(self, name: str) -> Any:
        async def unavailable(*args: Any, **kwargs: Any) -> None:
            raise JournalUnavailable

        return unavailable


@dataclass(frozen=True, slots=True)
class Load:
    """`load`: of their share that the well-behaved tenants ask for. Rates in calls a second."""

    places: int
    tenants: int
    load: float
    times: float
    model: str
    call_s: float
    random_arrivals: bool

    @property
    def patience(self) -> float:
        """Seconds that the last calls of the well-behaved are given to end."""
        return 30 + 3 * self.call_s

    @property
    def share(self) -> float:
        return self.places / self.call_s / (self.tenants + 1)


@dataclass(slots=True)
class Phase:
    """First tokens of the well-behaved tenants, in milliseconds; and how the calls ended."""

    first_ms: list[float] = field(default_factory=list)
    failed: int = 0
    flood_served: int = 0
    flood_refused: int = 0

    def quantile(self, share: float) -> float:
        times = sorted(self.first_ms)
        return times[min(int(share * len(times)), len(times) - 1)] if times else float("nan")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--places", type=int, default=32, help="calls at once at the provider (32)")
    parser.add_argument("--tenants", type=int, default=9, help="well-behaved tenants (9)")
    parser.add_argument("--times", type=float, default=50, help="what the other one asks for, in shares (50)")
    parser.add_argument(
        "--loads", type=lambda text: [float(part) for part in text.split(",")], default=[0.5, 0.8, 1.0],
        help="what the well-behaved ask for, of their share (0.5,0.8,1)",
    )  # fmt: skip
    parser.add_argument("--arrivals", choices=("even", "random"), default="even", help="of each tenant's calls (even)")
    parser.add_argument("--first-token-ms", type=int, default=400, help="the provider's (400)")
    parser.add_argument("--tokens", type=int, default=16, help="of an answer (16)")
    parser.add_argument("--gap-ms", type=int, default=25, help="between two tokens (25)")
    parser.add_argument("--seconds", type=float, default=20, help="of each phase, after a warm-up (20)")
    parser.set_defaults(run=measure_fairness)


def measure_fairness(chosen: argparse.Namespace, console: Console) -> None:
    """Alone, beside the flood, and beside it without fair queueing; at each load."""
    model = f"mock,n={chosen.tokens},ttft={chosen.first_token_ms},itl={chosen.gap_ms}"
    table = Table("load", "queue", "flood", "p50 ms", "p99 ms", "p99 to alone", "calls", "flood served/refused")
    with (
        tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name,
        mock.start(Path(name)) as provider,
    ):
        call_s = run(_call_s(provider, model, chosen.places))
        for level in chosen.loads:
            load = Load(chosen.places, chosen.tenants, level, chosen.times, model, call_s, chosen.arrivals == "random")
            alone: float | None = None
            for fair, flood in ((True, False), (True, True), (False, True)):
                with console.status(f"load {level:g}, {'fair' if fair else 'one'} queue, flood: {flood}"):
                    phase = run(_phase(provider, load, fair, flood, chosen.seconds))
                alone = alone or phase.quantile(0.99)
                table.add_row(*_row(load, phase, fair, flood, alone))
    console.print(
        f"{chosen.places} places, a call takes {call_s * 1000:.0f} ms and its first token {chosen.first_token_ms} ms: "
        f"{chosen.places / call_s:.1f} calls/s for {chosen.tenants} tenants and one that asks for {chosen.times:g} "
        f"shares; {chosen.arrivals} arrivals"
    )
    console.print(table)
    console.print(facts.line(facts.machine()))


def _row(load: Load, phase: Phase, fair: bool, flood: bool, alone: float) -> list[str]:
    queue = "fair" if fair else "one for all"
    times = f"{phase.quantile(0.5):.0f}", f"{phase.quantile(0.99):.0f}", f"{phase.quantile(0.99) / alone:.2f}"
    calls = f"{len(phase.first_ms)}" + (f" ({phase.failed} failed)" if phase.failed else "")
    served = f"{phase.flood_served} / {phase.flood_refused}" if flood else ""
    return [f"{load.load:g}", queue, f"{load.times:g} shares" if flood else "none", *times, calls, served]


def _language_model(provider: Provider, places: int) -> HostedLLM:
    os.environ["BENCH_PROVIDER_KEY"] = provider.key
    entry = {
        "name": "mock",
        "base_url": provider.url,
        "key": "${BENCH_PROVIDER_KEY}",
        "max_connections": places,
        "models": [{"id": "mock*"}],
    }
    return HostedLLM(NoJournal(), parse_catalog({"providers": [entry]}))  # type: ignore[arg-type]


async def _call_s(provider: Provider, model: str, places: int) -> float:
    """Seconds that a call holds its place while all are taken, the median."""
    llm = _language_model(provider, places)
    took: list[float] = []

    async def place(number: int) -> None:
        await asyncio.sleep(number / places)
        for turn in range(WARM_UP):
            began = time.monotonic()
            messages = [{"role": "user", "content": "Where is my order?"}]
            await llm.generate(GenerationRequest("t", f"turn_{number}_{turn}", 1, model, messages, journal=False))
            took.append(time.monotonic() - began)

    await asyncio.gather(*(place(number) for number in range(places)))
    await llm.close()
    return statistics.median(took)


async def _phase(provider: Provider, load: Load, fair: bool, flood: bool, seconds: float) -> Phase:
    llm = _language_model(provider, load.places)
    phase, calls, others = Phase(), set[asyncio.Task[None]](), list[asyncio.Task[None]]()
    gc.collect()
    gc.freeze()  # as Serve does
    collect_seldom()
    begin = time.time() + 0.2
    measured = begin + WARM_UP * load.call_s
    end = measured + seconds
    number = 0

    async def ask(tenant: str, due: float, number: int) -> None:
        request = GenerationRequest(
            tenant if fair else "all",
            f"turn_{tenant}_{number}",
            1,
            load.model,
            [{"role": "user", "content": f"Where is order {number} of {tenant}?"}],
            journal=False,
        )
        outcome: Outcome | None
        try:
            outcome = await llm.generate(request)
        except BrainError:
            outcome = None
        _note(phase, tenant, due, outcome, measured)

    async def arrivals(tenant: str, rate: float, due: float) -> None:
        nonlocal number
        while due < end:
            await asyncio.sleep(due - time.time())
            number += 1
            task = asyncio.create_task(ask(tenant, due, number))
            calls.add(task)
            task.add_done_callback(calls.discard)
            if tenant != FLOOD:
                others.append(task)
            due += random.expovariate(rate) if load.random_arrivals else 1 / rate

    rate = load.load * load.share
    tenants = [(f"t{index}", rate, begin + index / load.tenants / rate) for index in range(load.tenants)]
    if flood:
        tenants.append((FLOOD, load.times * load.share, measured))
    await asyncio.gather(*(arrivals(*tenant) for tenant in tenants))
    await asyncio.wait(others, timeout=load.patience)
    await llm.close()
    await asyncio.gather(*calls, return_exceptions=True)
    gc.unfreeze()
    return phase


def _note(phase: Phase, tenant: str, due: float, outcome: Outcome | None, measured: float) -> None:
    if due < measured:
        return
    answered = outcome is not None and outcome.ending == "completed"
    if tenant == FLOOD:
        phase.flood_served += answered
        phase.flood_refused += not answered
        return
    attempt = outcome.attempts[-1] if outcome is not None and outcome.attempts else None
    if not answered or attempt is None or attempt.first_token_ms is None:
        phase.failed += 1
        return
    phase.first_ms.append((attempt.started_at - due) * 1000 + attempt.first_token_ms)
