"""One tenant asks for far more than the provider can do: it is refused at once, and others are served."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from tests.e2e.brain import Brain

pytestmark = pytest.mark.cluster
CLIENTS = 80  # some ten times what the narrow provider does at once: all of them would wait for many times a turn


@dataclass
class Flood:
    """What its clients were answered: seconds and `retry-after` of each refusal, and completed turns."""

    refusals: list[tuple[float, str]] = field(default_factory=list)
    completed: int = 0
    others: list[str] = field(default_factory=list)


@asynccontextmanager
async def flooding(brain: Brain) -> AsyncIterator[Flood]:
    """Clients that send one turn after the other, and do not wait as they are told."""
    flood = Flood()

    async def client(http: httpx.AsyncClient) -> None:
        conversation = await conversation_of(http)
        while True:
            began = time.monotonic()
            answer = await turn(http, conversation)
            if answer.status_code == 429 and answer.json()["error"]["code"] == "overloaded":
                flood.refusals.append((time.monotonic() - began, answer.headers["retry-after"]))
                await asyncio.sleep(0.5)
            elif "event: turn.completed" in answer.text:
                flood.completed += 1
            else:
                flood.others.append(answer.text[-300:])

    async with client_of(brain, brain.key) as http:
        clients = [asyncio.create_task(client(http)) for _ in range(CLIENTS)]
        try:
            yield flood
        finally:
            for one in clients:
                one.cancel()
            ended = await asyncio.gather(*clients, return_exceptions=True)
    flood.others += [repr(one) for one in ended if not isinstance(one, asyncio.CancelledError)]


def client_of(brain: Brain, key: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=brain.url, headers={"Authorization": f"Bearer {key}"}, timeout=60, limits=limits)


async def conversation_of(http: httpx.AsyncClient) -> str:
    answer = await http.post("/api/v1/conversations", json={})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def turn(http: httpx.AsyncClient, conversation: str) -> httpx.Response:
    body = {"content": "Where is my order?", "model": "narrow", "stream": True}
    return await http.post(f"/api/v1/conversations/{conversation}/messages", json=body)


async def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


async def test_a_flood_is_refused_quickly_and_a_quiet_tenant_is_served(
    brain: Brain, other_tenant: httpx.Client
) -> None:
    quiet_key = other_tenant.headers["Authorization"].removeprefix("Bearer ")
    async with client_of(brain, quiet_key) as quiet, client_of(brain, brain.key) as http:
        mine = await conversation_of(quiet)
        async with flooding(brain) as flood:
            await until(lambda: len(flood.refusals) > 50, 60, "nobody was refused")
            flood.refusals.clear()
            served = flood.completed
            for _ in range(5):
                answer = await turn(quiet, mine)
                assert "event: turn.completed" in answer.text, answer.text[-300:]
            seen = list(flood.refusals)
            await until(lambda: flood.completed >= served + 10, 60, "the flood got nothing at all")
            assert (await http.get("/health/ready")).status_code == 200
            assert (await http.get("/api/v1/conversations")).status_code == 200
        assert flood.others == []
        assert statistics.median(seconds for seconds, _ in seen) < 2
        assert all(1 <= int(after) <= 60 for _, after in seen)
        after = await conversation_of(http)
        deadline = time.monotonic() + 15
        while (answer := await turn(http, after)).status_code == 429:
            assert time.monotonic() < deadline, "still refused long after the flood"
            await asyncio.sleep(0.2)
        assert "event: turn.completed" in answer.text
        assert (await quiet.delete(f"/api/v1/conversations/{mine}")).status_code == 200
        refused = [line for line in (await http.get("/metrics")).text.splitlines() if "admission_refused_total" in line]
        assert any(float(line.rsplit(" ", 1)[1]) > 0 for line in refused if not line.startswith("#"))
