"""What every cache promises, and what is Redis's own."""

import asyncio
import uuid

import psycopg
import pytest

from domain.errors import Unavailable
from domain.tenant import Caller
from serve_app.access_watch import AccessWatch
from serve_app.caches import CacheCollector, Caches
from storage.access import AccessChange
from storage.caches import LocalCache, RedisCache, tell_flush
from storage.migrations import downgrade, upgrade
from storage.reader import PostgresReader
from storage.redis import open_redis
from tests.conftest import make_database

LONG = 60.0


@pytest.fixture
async def two_of_redis(redis_url):
    name = uuid.uuid4().hex
    both = [RedisCache(open_redis(redis_url), name) for _ in range(2)]
    yield both
    for one in both:
        await one.close()


@pytest.fixture(params=["local", "redis"])
def cache(request, two_of_redis):
    return LocalCache() if request.param == "local" else two_of_redis[0]


async def until(condition, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_what_was_put_is_given_until_it_is_forgotten(cache):
    assert await cache.get("ten_1", "a") is None
    await cache.put("ten_1", "a", b"1:\x00", LONG)
    assert await cache.get("ten_1", "a") == b"1:\x00"
    await cache.put("ten_1", "a", b"2", LONG)
    assert await cache.get("ten_1", "a") == b"2"
    await cache.forget("ten_1", "a")
    await cache.forget("ten_1", "a")
    assert await cache.get("ten_1", "a") is None


async def test_no_tenant_is_given_what_is_anothers(cache):
    await cache.put("ten_1", "a", b"1", LONG)
    assert await cache.get("ten_2", "a") is None
    await cache.forget("ten_2", "a")
    assert await cache.get("ten_1", "a") == b"1"


async def test_an_entry_ends_with_its_time(cache):
    await cache.put("ten_1", "a", b"1", 0.05)

    async def gone():
        return await cache.get("ten_1", "a") is None

    await until(gone)


async def test_a_flush_forgets_all_and_what_is_put_later_counts(cache):
    for tenant in ("ten_1", "ten_2"):
        await cache.put(tenant, "a", b"1", LONG)
    await cache.flush()
    assert [await cache.get(tenant, "a") for tenant in ("ten_1", "ten_2")] == [None, None]
    await cache.put("ten_1", "a", b"2", LONG)
    assert await cache.get("ten_1", "a") == b"2"


async def test_hits_and_misses_are_counted(cache):
    await cache.get("ten_1", "a")
    await cache.put("ten_1", "a", b"1", LONG)
    for _ in range(3):
        await cache.get("ten_1", "a")
    told = cache.statistics
    assert (told.hits, told.misses, told.evicted) == (3, 1, 0)


async def test_a_local_cache_is_bounded_and_keeps_what_is_used():
    cache = LocalCache(bound=3)
    for key in "abc":
        await cache.put("ten_1", key, key.encode(), LONG)
    await cache.get("ten_1", "a")
    await cache.put("ten_1", "d", b"d", LONG)
    assert [await cache.get("ten_1", key) for key in "abcd"] == [b"a", None, b"c", b"d"]
    assert (cache.statistics.entries, cache.statistics.bound, cache.statistics.evicted) == (3, 3, 1)


async def test_replicas_share_a_cache_in_redis_and_its_flush(two_of_redis):
    one, other = two_of_redis
    await one.put("ten_1", "a", b"1", LONG)
    assert await other.get("ten_1", "a") == b"1"
    await other.flush()
    assert await one.get("ten_1", "a") is None


async def test_without_redis_there_is_nothing_and_forgetting_is_not_believed():
    cache = RedisCache(open_redis("redis://127.0.0.1:9", timeout=0.5), "c")
    await cache.put("ten_1", "a", b"1", LONG)
    assert await cache.get("ten_1", "a") is None
    with pytest.raises(Unavailable):
        await cache.forget("ten_1", "a")
    with pytest.raises(Unavailable):
        await cache.flush()
    await cache.close()


# By name, on every replica


def flushed(name: str) -> list[AccessChange]:
    return [AccessChange(1, "ten_1", "cache", name)]


async def test_a_flush_that_is_heard_of_is_of_that_cache_and_a_missed_one_of_all_that_are_local():
    class Shared(LocalCache):
        shared = True

    kinds = {"a": LocalCache(), "b": LocalCache(), "c": Shared()}
    caches = Caches(kinds)

    async def fill() -> None:
        for cache in kinds.values():
            await cache.put("ten_1", "k", b"1", LONG)

    async def kept() -> str:
        return "".join([name for name, cache in kinds.items() if await cache.get("ten_1", "k")])

    for changes, left in (
        (flushed("a"), "bc"),
        (flushed("c"), "abc"),
        ([AccessChange(1, "ten_1", "key", "a")], "abc"),
        ([], "abc"),
        (None, "c"),
    ):
        await fill()
        await caches.heard(changes)
        assert await kept() == left, changes


async def test_two_replicas_hear_of_a_flush_and_the_audit_log_tells_of_it(pool, tenant, database_url):
    replicas = [LocalCache() for _ in range(2)]
    watches = [AccessWatch(PostgresReader(pool), every=0.05) for _ in replicas]
    for watch, cache in zip(watches, replicas, strict=True):
        watch.listeners.append(Caches({"things": cache}).heard)
        await watch.refresh()
        watch.start()
    for cache in replicas:
        await cache.put("ten_1", "a", b"1", LONG)
    await tell_flush(pool, Caller(tenant, "key_operator", "operator"), "things")

    async def empty():
        return not sum(cache.statistics.entries for cache in replicas)

    await until(empty)
    for watch in watches:
        await watch.close()
    with psycopg.connect(database_url) as connection:
        told = connection.execute(
            "SELECT actor->>'key_id', subject FROM brain.audit WHERE action = 'cache.flush' AND tenant_id = %s",
            (tenant,),
        ).fetchall()
    assert told == [("key_operator", "things")]


async def test_prometheus_is_told_the_figures():
    cache = LocalCache(bound=1)
    await cache.get("ten_1", "a")
    for key in "ab":
        await cache.put("ten_1", key, b"1", LONG)
    samples = {
        sample.name: sample.value
        for family in CacheCollector(Caches({"things": cache})).collect()
        for sample in family.samples
    }
    assert samples == {
        "brain_cache_hits_total": 0,
        "brain_cache_misses_total": 1,
        "brain_cache_evicted_total": 1,
        "brain_cache_entries": 1,
    }


def test_the_migration_goes_back_and_forth(postgres_folder):
    url = make_database(postgres_folder)
    tell = "SELECT brain.access_changed('ten_1', 'cache', 'things')"
    with psycopg.connect(url) as connection:
        connection.execute(tell)
    downgrade(url, "0011")
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(tell)
    upgrade(url)
    with psycopg.connect(url) as connection:
        connection.execute(tell)
