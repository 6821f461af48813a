"""Following a tenant's events, from the stream and from the outbox."""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from domain.cloud_events import GAP
from domain.errors import Overloaded
from domain.ids import new_id
from storage.event_streams import Bounds
from tests.storage.events_world import gather, until


async def begun(feed, tenant, *args, **named):
    """A follower from now on, which has begun, and what it is given."""
    found: list = []

    async def follow() -> None:
        async with aclosing(feed.follow(tenant, *args, **named)) as source:
            async for one in source:
                found.append(one)

    task = asyncio.create_task(follow())
    await until(lambda: feed._tail._readers)
    return task, found


async def ended(task) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_two_followers_are_given_what_comes_by_one_read(events, name):
    relay, feed = events.relay(), events.feed()
    events.write(name, "message.received", count=3)
    await events.drain(relay)
    one, first = await begun(feed, name)
    other, second = await begun(feed, name, ("turn.*",))
    await until(lambda: sum(map(len, feed._tail._readers.values())) == 2)
    events.write(name, "message.received", count=3)
    events.write(name, "turn.cancelled", {"turn_id": "turn_1"})
    await events.drain(relay)
    await until(lambda: len(first) == 5 and len(second) == 1)
    types = [event.type for _, event in first]
    assert types == ["message.received"] * 3 + ["message.processed", "turn.cancelled"]
    assert second[0][1].type == "turn.cancelled" and second[0][0] == first[-1][0]
    await ended(one)
    await ended(other)
    assert not feed._tail._readers


async def test_any_id_is_gone_on_behind_without_a_gap_or_a_repetition(events, name):
    relay, feed = events.relay(), events.feed()
    events.write(name, "message.received", count=450)
    events.write(name, "turn.cancelled", {"turn_id": "turn_1"})
    await events.drain(relay)
    async with aclosing(feed.follow(name, since=datetime.now(UTC) - timedelta(hours=1))) as source:
        everything = await gather(source, 452)
    streamed = []
    async with aclosing(feed.follow(name, after=str(everything[0][0]))) as source:
        rest = await gather(source, 451)
    assert len({event.id for _, event in rest}) >= 451 - 1
    async with aclosing(feed.follow(name, after=rest[-1][0])) as source:
        streamed = [found async for found in _within(source, 0.3)]
    assert streamed == [] or {event.id for _, event in streamed} <= {event.id for _, event in everything}


async def _within(source, seconds):
    try:
        while True:
            async with asyncio.timeout(seconds):
                found = await anext(source)
            yield found
    except TimeoutError:
        return


async def test_ids_of_the_stream_lead_to_exactly_what_followed(events, name):
    relay, feed = events.relay(), events.feed()
    task, found = await begun(feed, name)
    events.write(name, "message.received", count=300)
    await events.drain(relay)
    await until(lambda: len(found) == 300)
    await ended(task)
    for place in (0, 1, 150, 298):
        async with aclosing(feed.follow(name, after=found[place][0])) as source:
            assert await gather(source, 299 - place) == found[place + 1 :]


async def test_what_the_stream_has_no_more_comes_from_the_outbox(events, name):
    relay = events.relay(bounds=Bounds(of_tenant=50))
    feed = events.feed()
    task, found = await begun(feed, name)
    events.write(name, "message.received", count=20)
    await events.drain(relay)
    await until(lambda: len(found) == 20)
    await ended(task)
    events.write(name, "message.received", count=1500)
    await events.drain(relay)
    async with aclosing(feed.follow(name, after=found[9][0])) as source:
        again = await gather(source, 1520)
    ids = list(dict.fromkeys(event.id for _, event in again))
    assert ids[:20] == [event.id for _, event in found] and len(ids) == 1520
    events.write(name, "message.received")
    async with aclosing(feed.follow(name, after=again[-1][0])) as source:  # an id that the outbox gave
        task = asyncio.create_task(gather(source, 1521))
        await events.drain(relay)
        assert len({event.id for _, event in await task}) == 1521


async def test_a_follower_outlives_a_redis_that_lost_everything(events, name):
    relay, feed = events.relay(), events.feed()
    task, found = await begun(feed, name)
    events.write(name, "message.received", count=5)
    await events.drain(relay)
    await until(lambda: len(found) == 5)
    await events.redis.flushall()
    events.write(name, "message.received", count=5)
    await events.drain(relay)
    await until(lambda: len({event.id for _, event in found}) == 10)
    await ended(task)


async def test_what_nobody_keeps_any_more_is_told_as_a_gap(events, name):
    relay, feed = events.relay(), events.feed()
    task, found = await begun(feed, name)
    events.write(name, "message.received", count=5)
    await events.drain(relay)
    await until(lambda: len(found) == 5)
    await ended(task)
    await events.redis.delete(f"brain:events:{name}")
    with psycopg.connect(events.url) as connection:
        connection.execute("DELETE FROM brain.outbox")
    events.write(name, "message.received", count=2)
    await events.drain(relay)
    async with aclosing(feed.follow(name, ("message.*",), after=found[2][0])) as source:
        told = await gather(source, 3)
    assert [event.type for _, event in told] == [GAP, "message.received", "message.received"]


async def test_a_follower_that_reads_too_slowly_is_let_go(events, name):
    relay, feed = events.relay(), events.feed()
    feed._tail._bound = 100
    async with aclosing(feed.follow(name)) as source:
        first = asyncio.create_task(anext(source))
        await until(lambda: feed._tail._readers)
        events.write(name, "message.received")
        await events.drain(relay)
        await first
        events.write(name, "message.received", count=200)
        await events.drain(relay)
        await until(lambda: not feed._tail._readers)
        with pytest.raises(Overloaded):
            await gather(source, 1000)


async def test_another_tenants_events_are_not_seen(events, name):
    relay, feed = events.relay(), events.feed()
    task, found = await begun(feed, name)
    events.write(new_id("ten"), "message.received", count=5)
    events.write(name, "message.received", count=1)
    await events.drain(relay)
    await until(lambda: found)
    assert [event.tenant for _, event in found] == [name]
    await ended(task)
