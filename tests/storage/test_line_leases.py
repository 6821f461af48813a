"""Who holds a channel's connection: one at a time, by epochs that only grow."""

import asyncio
import contextlib
import uuid
from datetime import UTC, datetime

import pytest

from domain.channels import Channel, ChannelState
from domain.errors import Unavailable
from domain.ids import new_id
from domain.lines import NoAnswer
from storage.line_calls import RedisLineCalls
from storage.line_leases import RedisLineLeases
from storage.redis import open_redis
from tests.conftest import free_port

NOW = datetime(2026, 1, 5, 10, tzinfo=UTC)


@pytest.fixture
async def redis(own_redis):
    client = open_redis(own_redis)
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture
def channel():
    return Channel(new_id("ten"), new_id("chn"), "service", "shop")


async def test_one_holds_until_it_lets_go(redis, channel):
    one, two = RedisLineLeases(redis, "one"), RedisLineLeases(redis, "two")
    grip = await one.take(channel)
    assert grip is not None and grip.resume is None
    assert await two.take(channel) is None
    assert await one.renew(channel, grip, ChannelState(True, NOW), "c-7")
    assert (await two.look(channel)).holder == "one"
    assert (await two.look(channel)).state == ChannelState(True, NOW)
    await two.release(channel, grip)
    assert (await two.look(channel)).holder == "one", "it was not its own"
    await one.release(channel, grip)
    assert await one.look(channel) is None
    after = await two.take(channel)
    assert after.epoch > grip.epoch and after.resume == "c-7"


async def test_who_did_not_renew_in_time_holds_no_more_and_changes_nothing(redis, channel):
    one, two = RedisLineLeases(redis, "one", lease=0.05), RedisLineLeases(redis, "two")
    grip = await one.take(channel)
    async with asyncio.timeout(20):
        while (after := await two.take(channel)) is None:
            await asyncio.sleep(0.01)
    assert not await one.renew(channel, grip, ChannelState(True, NOW), "c-9")
    await one.release(channel, grip)
    assert (await one.look(channel)).holder == "two"
    await two.release(channel, after)
    assert (await one.take(channel)).resume is None, "what it told after it had lost the grip does not count"


async def test_epochs_grow_over_a_redis_that_lost_its_data_and_one_whose_clock_went_back(redis, channel):
    leases = RedisLineLeases(redis, "one")
    grip = await leases.take(channel)
    await redis.flushdb()
    assert not await leases.renew(channel, grip, ChannelState(True, NOW), None)
    after = await leases.take(channel)
    assert after.epoch > grip.epoch
    ahead = after.epoch + 10**9
    await redis.hset(f"brain:{channel.tenant}:line:{{{channel.id}}}:last", "epoch", ahead)
    assert (await leases.take(channel)).epoch == ahead + 1


async def test_orders_reach_the_one_that_is_named_and_answers_the_one_that_asked(own_redis):
    async def obey(order):
        return {"heard": order}

    one, two = calls(own_redis), calls(own_redis)
    one.on_order(obey)
    two.on_order(obey)
    await there(one)
    async with asyncio.timeout(20):
        while (answer := await one.ask(two.holder, {"do": "x"}, 5)) is None:
            await asyncio.sleep(0.01)
    assert answer == {"heard": {"do": "x"}}
    assert await one.ask("nobody", {"do": "x"}, 5) is None
    await two.close()
    await one.close()


async def test_who_was_asked_and_says_nothing_is_told_from_answers_that_are_not_heard(own_redis):
    async def obey(order):
        return {} if order["do"] == "ping" else await asyncio.Event().wait()

    one, two, deaf = calls(own_redis), calls(own_redis), calls(own_redis)
    for each in (one, two):
        each.on_order(obey)
        await there(each)
    with pytest.raises(NoAnswer):
        await one.ask(two.holder, {"do": "x"}, 0.2)
    with pytest.raises(Unavailable):
        await deaf.ask(two.holder, {"do": "ping"}, 60)
    for each in (one, two, deaf):
        await each.close()


def calls(url):
    return RedisLineCalls(open_redis(url), open_redis(url, 10), uuid.uuid4().hex)


async def there(calls):
    """Until they hear."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(Unavailable):
                if await calls.ask(calls.holder, {"do": "ping"}, 5) is not None:
                    return
            await asyncio.sleep(0.01)


async def test_a_redis_that_is_away_is_unavailable(channel):
    away = open_redis(f"redis://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable):
        await RedisLineLeases(away, "one").take(channel)
    with pytest.raises(Unavailable):
        await RedisLineLeases(away, "one").look(channel)
    await away.aclose()
