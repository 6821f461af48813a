"""A campaign: clients at work on a whole service while faults are injected, then everything that is left is read."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import aiohttp
import httpx

from benchmarks.mock_spec import parse_model, reply_tokens
from domain.turn import TurnStatus
from tests.e2e.brain import ROOT
from tests.faults import evidence
from tests.faults.actions import Client, Shared
from tests.faults.calls import Caller
from tests.faults.faults import Fault
from tests.faults.history import History, Message, Operation, Provided, Stored, TurnState
from tests.faults.injector import Injected, Injector
from tests.faults.world import service

GROUP = 4  # clients that share conversations
AT_ONCE = 16  # reads at the end
QUIET = 120.0  # seconds after which every turn has ended


class Place(Protocol):
    """Where a service answers, and the key that its clients use."""

    url: str
    key: str


@dataclass(slots=True)
class Result:
    """`seconds`: how long clients worked. `calls`: how often the provider was asked, by message. `logs`: the
    service's, by name. `gave_up`: it did not come back after a fault, and nothing more was asked of it."""

    seed: int
    seconds: float
    history: History = field(default_factory=History)
    injected: list[Injected] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    logs: dict[str, bytes] = field(default_factory=dict)
    gave_up: bool = False

    @property
    def lost(self) -> list[Injected]:
        """Faults after which the service did not come back."""
        return [one for one in self.injected if one.recovered is None and one.ended]


def run(
    seconds: float,
    seed: int,
    clients: int,
    faults: tuple[Fault, ...],
    told: Callable[[str], None] = lambda said: None,
    tree: Path = ROOT,
) -> Result:
    """The same clients and faults for the same seed; what meets what is up to the machine. `tree`: the source of the
    service."""
    result = Result(seed, seconds)
    with service(seed, tree, any(fault.scarce for fault in faults)) as world:
        brain = world.brain
        injector = Injector(world, seed, tuple(one for one in faults if world.shim.there or not one.shim))
        thread = threading.Thread(target=injector.run, daemon=True)
        thread.start()
        asyncio.run(work(brain, result, clients, injector, told))
        result.injected = injector.injected
        thread.join(180)
        result.gave_up = injector.gave_up
        if not injector.gave_up:
            told("reading what is left")
            asyncio.run(settle(brain, result.history))
        result.logs = evidence.collect(brain)
        result.calls = httpx.get(world.provider.removesuffix("/v1") + "/stats").json()["by_user"]
    provided(result)
    return result


def session(place: Place) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        place.url,
        headers={"authorization": f"Bearer {place.key}"},
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=30),
    )


async def work(place: Place, result: Result, clients: int, injector: Injector, told: Callable[[str], None]) -> None:
    until = time.monotonic() + result.seconds
    shared = [Shared() for _ in range(-(-clients // GROUP))]
    async with session(place) as http:
        working = [
            Client(Caller(f"c{number}", http, result.history.add), f"{result.seed}/{number}", one, until)
            for number, one in ((number, shared[number // GROUP]) for number in range(clients))
        ]
        telling = asyncio.create_task(_tell(result, injector, working, until, told))
        await asyncio.gather(*(client.run() for client in working))
        injector.stop.set()
        telling.cancel()


async def _tell(
    result: Result, injector: Injector, clients: list[Client], until: float, told: Callable[[str], None]
) -> None:
    """Where the service does not come back, nobody goes on."""
    while True:
        if injector.gave_up:
            for client in clients:
                client.until = 0.0
        left = max(until - time.monotonic(), 0.0)
        told(f"{len(result.history.operations)} operations, {len(injector.injected)} faults, {left:.0f} s left")
        await asyncio.sleep(1)


async def settle(place: Place, history: History) -> None:
    """Wait for the ends of all turns, and read every conversation that anybody knows of."""
    turns: dict[str, set[str]] = {}
    for call in history.operations:
        if call.conversation:
            known = turns.setdefault(call.conversation, set())
            known.update(message.turn for message, _ in call.sightings())
            if call.turn_told:
                known.add(call.turn_told)
    places = asyncio.Semaphore(AT_ONCE)
    async with session(place) as http:
        caller, reader = Caller("settling", http, lambda call: None), Caller("reader", http, history.add)
        await asyncio.gather(*(_stored(caller, reader, places, history, *item) for item in turns.items()))


async def _stored(
    caller: Caller, reader: Caller, places: asyncio.Semaphore, history: History, conversation: str, turns: set[str]
) -> None:
    """Also each turn's stream from its beginning, as somebody reads it who comes late."""
    deadline = time.monotonic() + QUIET
    states: list[TurnState] = []
    for turn in sorted(turns):
        while True:
            async with places:
                call = await caller.look(conversation, turn)
            ended = call.turn is not None and call.turn.status.ended
            if ended or call.outcome == "refused" or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.2)
        if call.turn is not None:
            states.append(call.turn)
            async with places:
                await reader.stream(conversation, turn, None)
    async with places:
        read: Operation = await caller.read(conversation)
        while read.outcome == "unknown" and time.monotonic() < deadline:
            read = await caller.read(conversation)
    messages: tuple[Message, ...] | None = read.messages if read.outcome == "ok" else None
    history.add(Stored(conversation, messages, tuple(states)))


def provided(result: Result) -> None:
    """What the provider says to a message is known beforehand."""
    for call in result.history.operations:
        if call.kind == "send" and call.turn_told and "model" in call.options:
            text = "".join(reply_tokens(call.content, parse_model(call.options["model"]).n))
            number = min(result.calls.get(call.content, 0), 8)
            result.history.add(Provided(call.turn_told, (text,) * number))


def fresh_seed() -> int:
    return int.from_bytes(os.urandom(4))


def turns_of(history: History, status: TurnStatus) -> int:
    """How many turns ended so."""
    return sum(turn.status is status for stored in history.stored.values() for turn in stored.turns)
