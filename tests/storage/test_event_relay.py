"""From the outbox to Redis: nothing lost, nothing out of order, and one relay at a time."""

import asyncio
import uuid

import psycopg
import pytest

from domain.errors import Fenced
from domain.ids import new_id
from domain.queue import Topic, topic_stream
from storage.event_streams import STATE, UNCONFIRMED, Bounds
from storage.event_topics import PostgresTopics
from tests.conftest import redis_server
from tests.servers.given import open_pool
from tests.storage.conftest import make_conversation, make_reply, make_send
from tests.storage.events_world import EventsWorld, until
from tests.storage.test_ownership import unfinished


async def test_what_is_committed_is_published_once_in_order_and_confirmed(events, name):
    events.write(name, "message.received", count=1200)
    await events.drain(events.relay())
    told = await events.of_tenant(name)
    assert [event.data["seq"] for event in told] == list(range(1200))
    assert {event.type for event in told} == {"message.received"} and {event.tenant for event in told} == {name}
    assert len({event.id for event in told}) == 1200
    assert await events.redis.scard(UNCONFIRMED) == 0


async def test_a_turn_tells_what_became_of_it_without_a_word_of_its_text(events, url):
    from storage.conversations import PostgresConversations

    with psycopg.connect(url) as connection:
        tenant = new_id("ten")
        connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, 'x')", [tenant])
    key = make_conversation(url, tenant)
    store = PostgresConversations(events.pool)
    owner = (await store.activate(key, str(uuid.uuid4()))).ownership
    send = make_send(key, "my secret")
    turn = unfinished(await store.accept(key, owner, send), send)
    reply = make_reply("the whole answer")
    await store.finish(key, owner, turn, 1, reply)
    await events.drain(events.relay())
    told = {event.type: event for event in await events.of_tenant(tenant)}
    assert list(told) == ["message.received", "response.generated", "message.processed", "turn.completed"]
    assert told["message.received"].data["message_id"] == send.message_id
    assert told["response.generated"].data == {
        "conversation_id": key.conversation,
        "turn_id": send.turn_id,
        "message_id": reply.message_id,
        "seq": 2,
        "model": "scripted",
    }
    assert told["message.processed"].data["message_id"] == send.message_id
    assert told["turn.completed"].data["status"] == "completed"
    assert all("secret" not in str(event.json()) and "answer" not in str(event.json()) for event in told.values())
    assert {event.key for event in told.values()} == {key.conversation}


async def test_topics_hold_the_types_that_they_name(events, name):
    topics = PostgresTopics(events.pool)
    await topics.create(Topic("turns", ("turn.*", "message.deleted")))
    for topic in ("message.received", "turn.cancelled", "message.deleted", "message.deleted.x"):
        events.write(name, topic, {"turn_id": "turn_1"})
    await events.drain(events.relay())
    types = [event.type for event in await events.stream(topic_stream("turns"))]
    assert types == ["turn.cancelled", "message.deleted"]
    everything = [event.id for event in await events.stream(topic_stream("brain"))]
    assert everything == [event.id for event in await events.of_tenant(name)] and len(everything) == 5


async def test_a_relay_that_stopped_before_it_confirmed_repeats_nothing(events, name):
    events.write(name, "message.received", count=30)
    first, second = events.relay(), events.relay()
    while await first.step() == 0:
        continue
    assert events.waiting() == 30 and len(await events.of_tenant(name)) == 30
    await first._log.release()  # it is gone, with what it was about to confirm
    await events.drain(second)
    assert len(await events.of_tenant(name)) == 30 and events.waiting() == 0


async def test_a_relay_that_was_paused_cannot_publish_any_more(events, name):
    paused, next_one = events.relay(), events.relay()
    await events.drain(paused)
    events.write(name, "message.received", count=3)
    held = await paused._take(paused._term)
    await paused._log.release()
    await events.drain(next_one)
    events.write(name, "message.received", count=3)
    with pytest.raises(Fenced):
        await paused._publish(paused._term, held)
    assert len(await events.of_tenant(name)) == 3


async def test_one_works_and_the_other_takes_over_when_it_falls_silent(url, own_redis, name):
    pool = await open_pool(url, 8)
    world = EventsWorld(url, pool, own_redis, lease=1.5)
    await world.empty()
    try:
        first, second = world.relay(), world.relay()
        first.start()
        await until(lambda: first.figures.leading)
        second.start()
        world.write(name, "message.received", count=10)
        await until(lambda: world.waiting() == 0)
        assert not second.figures.leading
        for task in first._tasks:  # it dies without a word
            task.cancel()
        world.write(name, "message.received", count=10)
        await until(lambda: world.waiting() == 0)
        assert second.figures.leading and len(await world.of_tenant(name)) == 20
    finally:
        await world.close()
        await pool.close()


async def test_a_redis_that_lost_everything_is_told_the_last_hour_again_with_the_same_ids(events, name):
    relay = events.relay()
    events.write(name, "message.received", count=700)
    await events.drain(relay)
    before = [event.id for event in await events.of_tenant(name)]
    with psycopg.connect(events.url) as connection:
        connection.execute(
            "UPDATE brain.outbox SET created_at = created_at - interval '2 hours' WHERE (payload->>'seq')::int < 100"
        )
    await events.redis.flushall()
    events.write(name, "turn.cancelled", {"turn_id": "turn_1"})
    await events.drain(relay)
    told = await events.of_tenant(name)
    assert [event.id for event in told[:600]] == before[100:]
    assert [event.type for event in told[600:]] == ["message.processed", "turn.cancelled"]
    assert relay.figures.lost >= 1


async def test_a_redis_that_went_back_in_time_is_noticed(events, name):
    relay = events.relay()
    events.write(name, "message.received", count=5)
    await events.drain(relay)
    state = await events.redis.hgetall(STATE)
    events.write(name, "message.received", count=5)
    await events.drain(relay)
    lost = relay.figures.lost
    await events.redis.hset(STATE, mapping=state)  # as a snapshot of before would have it
    events.write(name, "message.received", count=5)
    await events.drain(relay)
    assert relay.figures.lost == lost + 1
    assert len({event.id for event in await events.of_tenant(name)}) == 15


async def test_a_relay_that_stops_while_it_tells_the_last_hour_again_is_continued(events, name):
    first, second = events.relay(), events.relay()
    events.write(name, "message.received", count=1100)
    await events.drain(first)
    await events.redis.flushall()
    first._checked = 0
    await first.step()  # it notices
    await first.step()  # 500 of them
    assert len(await events.of_tenant(name)) == 500
    await first._log.release()
    await events.drain(second)
    told = [event.data["seq"] for event in await events.of_tenant(name)]
    assert list(dict.fromkeys(told)) == list(range(1100)) and len(told) == 1100
    assert second.figures.lost == 0


async def test_a_redis_that_is_away_loses_nothing_and_is_caught_up(url, name):
    pool = await open_pool(url, 8)
    with redis_server() as redis_url:
        world = EventsWorld(url, pool, redis_url)
        await world.empty()
        relay = world.relay()
        relay.start()
        world.write(name, "message.received", count=10)
        await until(lambda: world.waiting() == 0)
        with psycopg.connect(url) as connection:
            rows = connection.execute("SELECT marker, position FROM brain.relays").fetchone()
        # It hangs: what was sent may have been taken or not.
        await world.redis.execute_command("CLIENT", "PAUSE", "5000", "ALL")
        world.write(name, "message.received", count=3000)
        await until(lambda: relay.figures.failures > 0)
        assert len(relay._done) <= 500 and world.waiting() >= 3000
        await until(lambda: world.waiting() == 0, 30)
        told = [event.data["seq"] for event in await world.of_tenant(name)]
        assert told == [*range(10), *range(3000)]
        assert relay.figures.lost == 0 or rows is not None
        await world.close()
    await pool.close()


async def test_streams_are_bounded_and_end_by_themselves(events, name):
    relay = events.relay(bounds=Bounds(of_tenant=200, of_topic=300, life=60))
    events.write(name, "message.received", count=2000)
    await events.drain(relay)
    assert await events.redis.xlen(f"brain:events:{name}") < 400
    assert await events.redis.xlen(topic_stream("brain")) < 500
    assert 0 < await events.redis.ttl(f"brain:events:{name}") <= 60
    assert await events.redis.ttl(topic_stream("brain")) == -1


async def test_a_tenant_that_is_gone_leaves_no_stream(events, name):
    relay = events.relay()
    events.write(name, "message.received")
    await events.drain(relay)
    events.write(name, "tenant.deleted")
    await events.drain(relay)
    assert await events.redis.exists(f"brain:events:{name}") == 0
    assert [event.type for event in await events.stream(topic_stream("brain"))][-1] == "tenant.deleted"


async def test_conversations_keep_their_order_while_rows_commit_out_of_the_order_of_their_ids(events, name):
    relay = events.relay()
    relay.start()

    def conversation(id: str) -> None:
        lock = hash(id) % 1_000_000
        for n in range(25):
            with psycopg.connect(events.url) as connection:
                connection.execute("SELECT pg_advisory_xact_lock(%s)", [lock])
                connection.execute(
                    "INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES (%s, 'message.received',"
                    " jsonb_build_object('conversation_id', %s::text, 'seq', %s::int))",
                    [name, id, n],
                )
                connection.execute("SELECT pg_sleep(random() * 0.01)")

    ids = [new_id("conv") for _ in range(8)]
    await asyncio.gather(*(asyncio.to_thread(conversation, id) for id in ids))
    await until(lambda: events.waiting() == 0)
    told = await events.of_tenant(name)
    for id in ids:
        assert [event.data["seq"] for event in told if event.key == id] == list(range(25))
