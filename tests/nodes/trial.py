"""Clients at work while something happens to the nodes, and the verdict on what they saw."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import httpx

from tests.faults import campaign
from tests.faults.actions import Client, Shared
from tests.faults.calls import Caller
from tests.faults.checker import check
from tests.faults.violations import Violation
from tests.nodes.figures import Figures, figures
from tests.nodes.scenarios import Scenario

BEFORE = 10.0  # seconds of work before anything happens
LEAVING = 240.0  # seconds in which every client has ended what it began
GROUP = 4  # clients that share conversations
Told = Callable[[str], None]


class Provided(Protocol):
    """What scenarios act on. `provider`: the mock's URL. `worked`: how many calls of clients have ended."""

    worked: Callable[[], int]

    @property
    def provider(self) -> str: ...


Place = TypeVar("Place", bound=Provided)


@dataclass(frozen=True, slots=True)
class Front:
    """Where clients ask."""

    url: str
    key: str


@dataclass(slots=True)
class Trial:
    """`over`: seconds from the fault's beginning to its end. `calls`: what was not answered."""

    scenario: Scenario[Any]
    result: campaign.Result
    violations: list[Violation]
    figures: Figures
    over: float
    calls: Counter[str] = field(default_factory=Counter)

    @property
    def passed(self) -> bool:
        """Also that nobody was left without an answer."""
        noticed = self.figures.failed if self.scenario.strict else 0
        return not self.violations and not noticed and not self.figures.never


def run(service: Place, front: Front, scenario: Scenario[Place], seed: int, clients: int, told: Told) -> Trial:
    result = campaign.Result(seed, 0.0)
    service.worked = lambda: len(result.history.operations)
    began, ended = asyncio.run(_work(service, front, result, scenario, clients, told))
    told(f"{scenario.name}: reading what is left")
    asyncio.run(campaign.settle(front, result.history))
    result.calls = httpx.get(service.provider.removesuffix("/v1") + "/stats").json()["by_user"]
    campaign.provided(result)
    noticed = figures(result.history, began)
    outcomes = Counter(
        f"{call.kind} {call.http} {call.code}"
        for call in result.history.operations
        if call.outcome == "unknown" and not call.left
    )
    return Trial(scenario, result, check(result.history), noticed, ended - began, outcomes)


async def _work(
    service: Place, front: Front, result: campaign.Result, scenario: Scenario[Place], number: int, told: Told
) -> tuple[float, float]:
    """When the fault began, and when it was over."""
    shared = [Shared() for _ in range(-(-number // GROUP))]
    async with campaign.session(front) as http:
        clients = [
            Client(
                Caller(f"{scenario.name}{n}", http, result.history.add),
                f"{result.seed}/{n}",
                shared[n // GROUP],
                float("inf"),
                obeys=True,
            )
            for n in range(number)
        ]
        working = asyncio.gather(*(client.run() for client in clients))
        told(f"{scenario.name}: clients begin")
        start = time.monotonic()
        await asyncio.sleep(BEFORE)
        told(f"{scenario.name}: now")
        began = time.monotonic()
        try:
            await asyncio.to_thread(scenario.act, service)
            ended = time.monotonic()
            told(f"{scenario.name}: over after {ended - began:.0f} s")
            await asyncio.sleep(scenario.seconds)
        finally:
            for client in clients:
                client.until = 0.0
        async with asyncio.timeout(LEAVING):
            await working
        result.seconds = time.monotonic() - start
    return began, ended
