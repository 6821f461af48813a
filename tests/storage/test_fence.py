"""What is left to an owner once its database was put back to an earlier moment."""

import uuid

import psycopg
import pytest

from adapters.outgoing import Outgoing
from domain.deliveries import Retry
from domain.errors import Fenced
from domain.tool_calls import CallState, ToolCall
from storage.fence import fence
from tests.doubles.receiver import ALLOWED, receiving
from tests.servers.given import open_pool
from tests.storage.conftest import make_send
from tests.storage.delivery_world import DeliveryWorld


@pytest.mark.parametrize("fenced", [True, False])
async def test_only_a_fence_stops_an_owner_whose_claim_came_back(store, key, database_url, fenced):
    host = str(uuid.uuid4())
    owner = (await store.activate(key, host)).ownership
    await store.accept(key, owner, make_send(key))
    if not fenced:
        await store.accept(key, owner, make_send(key))
        return
    assert fence(database_url) >= 1
    with pytest.raises(Fenced):
        await store.accept(key, owner, make_send(key))
    found = await store.activate(key, host)
    assert len(found.unfinished) == 1


async def test_outbox_ids_go_on_after_every_one_that_was_given(store, key, database_url):
    with psycopg.connect(database_url) as connection:
        now = connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()[0]
    fence(database_url)
    owner = (await store.activate(key, str(uuid.uuid4()))).ownership
    await store.accept(key, owner, make_send(key))
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT max(id) FROM brain.outbox").fetchone()[0] > now


async def test_a_call_that_may_have_been_made_in_the_lost_time_is_not_made_again(store, key, database_url):
    owner = (await store.activate(key, str(uuid.uuid4()))).ownership
    turn = (await store.accept(key, owner, make_send(key))).turn.id
    calls = [
        ToolCall(0, place, f"call_{place}", "s__t", "mcp_1", "s", "t", "{}", repeatable=place == 0) for place in (0, 1)
    ]
    await store.plan_calls(key, owner, turn, calls)
    fence(database_url)
    assert [call.state for call in await store.tool_calls(key.tenant, turn)] == [CallState.PLANNED, CallState.UNKNOWN]


async def test_events_of_the_last_day_go_out_again_for_a_day_and_older_ones_do_not(url):
    pool = await open_pool(url, 8)
    async with receiving() as receiver, Outgoing(ALLOWED, wait=10) as outgoing:
        world = DeliveryWorld(url, pool, outgoing, receiver)
        world.empty()
        who = world.tenant()
        webhook = await world.webhook(who)
        world.sql("UPDATE brain.webhooks SET created_at = now() - interval '1 month'")
        for name in ("old", "young"):
            world.event(who, conversation_id=name)
        await world.fan_out()
        receiver.answers = [500, 500]
        await world.send(world.sender(Retry(delays=(300,))))
        for age, conversation in ((72, "old"), (23, "young")):
            world.sql(
                "UPDATE brain.deliveries SET created_at = created_at - make_interval(hours => %s),"
                " first_tried_at = now() - interval '1 week' WHERE conversation_id = %s",
                *(age, conversation),
            )
        waiting = world.event(who, conversation_id="older")
        world.sql("UPDATE brain.outbox SET created_at = now() - interval '3 days' WHERE id = %s", waiting)
        world.event(who, conversation_id="younger")
        fence(url)
        await world.fan_out()
        world.due()
        receiver.answers = [500, 500]
        await world.send(world.sender(Retry(delays=(300,))))
        assert (await world.webhooks.one(who.tenant, webhook)).status == "active", "it has a day to come back"
        world.due()
        await world.send()
        assert sorted(one.body["partitionkey"] for one in receiver.heard) == ["young", "younger"]
        assert sorted(world.statuses()) == ["delivered", "delivered", "failed"]
    await pool.close()
