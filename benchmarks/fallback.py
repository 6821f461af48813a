"""`python -m benchmarks fallback`: turns of `auto` while their model's provider is dead, one way or another.

A `HostedLLM` in this process has two providers of the same mock, the first of them dead, with the second in the chain.
How many turns the second answers, and what the dead one costs them before and after its breaker has opened, beside
turns that ask the second one at once.
"""

import argparse
import asyncio
import logging
import os
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import facts
from benchmarks.comparison import run
from benchmarks.fairness import NoJournal
from benchmarks.systems import Provider, free_port, mock
from deployments.hosted_llm import HostedLLM
from domain.generation import GenerationRequest
from domain.model import parse_catalog

MODEL = "mock,n=8"
DEATHS = ("refuses connections", "hangs in connecting", "accepts and says nothing", "answers 500")


@dataclass(slots=True)
class Turns:
    """Times to the first token, in milliseconds, by how the turn met its provider."""

    healthy: list[float] = field(default_factory=list)
    before: list[float] = field(default_factory=list)
    opened: list[float] = field(default_factory=list)
    answered: int = 0
    asked: int = 0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--turns", type=int, default=2000, help="of each death (2000)")
    parser.add_argument("--clients", type=int, default=4, help="turns at once (4)")
    parser.set_defaults(run=measure_fallback)


def measure_fallback(chosen: argparse.Namespace, console: Console) -> None:
    """Each way to die, healthy turns between the others."""
    headings = ("the provider", "answered by the fallback", "before it opened p50 ms", "healthy p50/p99 ms")
    logging.getLogger("deployments.providers.http").setLevel(logging.ERROR)  # what is told of each dead call
    table = Table(*headings, "breaker open p50/p99 ms", "extra p50/p99 ms")
    with (
        tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name,
        mock.start(Path(name)) as provider,
    ):
        for death in DEATHS:
            with console.status(death):
                turns = run(_turns(provider, death, chosen.turns, chosen.clients))
            table.add_row(death, *_row(turns))
    console.print(table)
    console.print(facts.line(facts.machine()))


def _row(turns: Turns) -> list[str]:
    healthy, opened = ((quantile(times, 0.5), quantile(times, 0.99)) for times in (turns.healthy, turns.opened))
    return [
        f"{turns.answered} of {turns.asked} ({100 * turns.answered / turns.asked:.1f} %)",
        f"{quantile(turns.before, 0.5):.0f} ({len(turns.before)} turns)",
        f"{healthy[0]:.2f} / {healthy[1]:.2f}",
        f"{opened[0]:.2f} / {opened[1]:.2f}",
        f"{opened[0] - healthy[0]:+.2f} / {opened[1] - healthy[1]:+.2f}",
    ]


def quantile(times: list[float], share: float) -> float:
    ordered = sorted(times)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


async def _turns(provider: Provider, death: str, number: int, clients: int) -> Turns:
    os.environ["BENCH_PROVIDER_KEY"] = provider.key
    turns = Turns()
    async with _dead(death, provider) as (url, model):
        fields: dict[str, Any] = {"key": "${BENCH_PROVIDER_KEY}", "timeouts": {"connect": 0.5, "first_token": 0.5}}
        dead = {"name": "dead", "base_url": url, "models": [{"id": "first", "upstream": model}], **fields}
        alive = {"name": "alive", "base_url": provider.url, "models": [{"id": "second", "upstream": MODEL}], **fields}
        dead["breaker"] = {"open": 3600}  # probes are not what is measured here
        llm = HostedLLM(NoJournal(), parse_catalog({"providers": [dead, alive]}))  # type: ignore[arg-type]
        left = list(range(number))

        async def client() -> None:
            while left:
                turn = left.pop()
                await _ask(llm, turns, turn, turn % 2 == 0)

        await asyncio.gather(*(client() for _ in range(clients)))
        await llm.close()
    return turns


async def _ask(llm: HostedLLM, turns: Turns, number: int, healthy: bool) -> None:
    messages = [{"role": "user", "content": f"Where is order {number}?"}]
    chain = () if healthy else ("second",)
    model = "second" if healthy else "first"
    request = GenerationRequest("bench", f"turn_{number}", 1, model, messages, chain=chain, journal=False)
    opened = "dead/first" in llm.unhealthy()
    began = time.time()
    outcome = await llm.generate(request)
    answer = outcome.attempts[-1]
    first = (answer.started_at - began) * 1000 + (answer.first_token_ms or float("inf"))
    if healthy:
        turns.healthy.append(first)
        return
    turns.asked += 1
    turns.answered += outcome.ending == "completed" and outcome.model == "second"
    (turns.opened if opened else turns.before).append(first)


@asynccontextmanager
async def _dead(death: str, provider: Provider) -> AsyncIterator[tuple[str, str]]:
    """Its base URL and the model to ask there."""
    if death == DEATHS[0]:
        yield f"http://127.0.0.1:{free_port()}/v1", MODEL
    elif death == DEATHS[1]:
        with _full_backlog() as port:
            yield f"http://127.0.0.1:{port}/v1", MODEL
    elif death == DEATHS[2]:
        yield provider.url, "mock,fault=hang_before"
    else:
        yield provider.url, "mock,status=500"


@contextmanager
def _full_backlog() -> Iterator[int]:
    """A port whose queue of new connections is full: Linux drops further ones, and they hang in connecting."""
    with socket.socket() as server, ExitStack() as stack:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield int(server.getsockname()[1])
