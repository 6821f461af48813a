"""Deliveries: one for each event and subscriber, in order per conversation, until they are taken or given up."""

import asyncio

import psycopg
import pytest

from adapters.outgoing import Outgoing
from domain.deliveries import DAY, Retry
from domain.errors import NotFound
from domain.ids import new_id
from tests.doubles.receiver import ALLOWED, receiving
from tests.servers.given import open_pool
from tests.storage.conftest import make_conversation
from tests.storage.delivery_world import DeliveryWorld


@pytest.fixture
async def world(url):
    pool = await open_pool(url, 8)
    async with receiving() as receiver, Outgoing(ALLOWED, wait=10) as outgoing:
        world = DeliveryWorld(url, pool, outgoing, receiver)
        world.empty()
        yield world
    await pool.close()


async def test_an_event_goes_to_each_webhook_that_wants_it_once(world):
    who, other = world.tenant(), world.tenant()
    await world.webhook(who, ("turn.*",))
    await world.webhook(who, ("message.received", "turn.completed"))
    await world.webhook(other)
    world.event(who, conversation_id="conv_a", turn_id="turn_a")
    world.event(who, "message.received", conversation_id="conv_a")
    world.event(who, "conversation.created", conversation_id="conv_a")
    await world.fan_out()
    await world.fan_out()
    await world.send()
    assert sorted(world.receiver.types()) == ["message.received", "turn.completed", "turn.completed"]
    assert len(set(world.receiver.ids)) == 2, "one event is one id, whoever hears it"
    body = world.receiver.heard[0].body
    assert body["specversion"] == "1.0" and body["source"] == f"/tenants/{who.tenant}"
    assert world.receiver.heard[0].headers["content-type"] == "application/cloudevents+json"
    assert world.statuses() == ["delivered"] * 3
    assert world.sql("SELECT count(*) FROM brain.outbox WHERE NOT confirmed @> '{deliveries}'") == [(0,)]


async def test_nothing_of_before_a_webhook_is_told_to_it(world):
    who = world.tenant()
    world.event(who)
    await world.webhook(who)
    world.event(who, "turn.failed")
    await world.fan_out()
    await world.send()
    assert world.receiver.types() == ["turn.failed"]


async def test_the_order_of_a_conversation_is_kept_while_others_go_on(world):
    who = world.tenant()
    await world.webhook(who)
    for n in range(5):
        world.event(who, conversation_id="conv_a", n=n)
        world.event(who, conversation_id="conv_b", n=n)
    await world.fan_out()
    world.receiver.answers = [lambda heard: 500 if heard.body["partitionkey"] == "conv_a" else 204] * 2
    await world.send(world.sender(Retry(delays=(300,))))
    assert [one.body["data"]["n"] for one in world.receiver.heard] == list(range(5))
    assert {one.body["partitionkey"] for one in world.receiver.heard} == {"conv_b"}
    world.due()
    await world.send()
    of_a = [one.body["data"]["n"] for one in world.receiver.heard if one.body["partitionkey"] == "conv_a"]
    assert of_a == list(range(5))


async def test_an_attempt_that_fails_is_kept_and_made_again_with_the_same_id(world):
    who = world.tenant()
    await world.webhook(who)
    world.event(who)
    await world.fan_out()
    world.receiver.answers, world.receiver.text = [500], "x" * 2000
    await world.send(world.sender(Retry(delays=(300,), jitter=0)))
    [row] = world.sql(
        "SELECT status, attempts, http_status, length(answer), error, duration_ms >= 0,"
        " extract(epoch FROM next_at - clock_timestamp())::int FROM brain.deliveries"
    )
    assert row[:6] == ("waiting", 1, 500, 500, "the receiver answered 500", True)
    assert 290 <= row[6] <= 300
    await world.send()
    assert len(world.receiver.refused) == 1, "not before its time"
    world.due()
    await world.send()
    assert world.receiver.ids == [world.receiver.refused[0].id]
    assert world.sql("SELECT status, attempts, http_status, error FROM brain.deliveries") == [
        ("delivered", 2, 204, None)
    ]


async def test_retry_after_is_heeded(world):
    who = world.tenant()
    await world.webhook(who)
    world.event(who)
    await world.fan_out()
    world.receiver.answers, world.receiver.headers = [503], {"retry-after": "7200"}
    await world.send()
    [(seconds,)] = world.sql("SELECT extract(epoch FROM due - clock_timestamp())::int FROM brain.delivery_lanes")
    assert 7190 <= seconds <= 7200


async def test_gone_disables_at_once_and_says_so(world):
    who = world.tenant()
    webhook = await world.webhook(who, ("turn.*",))
    witness = await world.webhook(who, ("webhook.*",))
    for n in range(3):
        world.event(who, conversation_id=f"conv_{n % 2}")
    await world.fan_out()
    world.receiver.answers = [410]
    await world.send(world.sender(most=1))
    assert (await world.webhooks.one(who.tenant, webhook)).status == "disabled"
    assert world.statuses() == ["failed"] * 3
    world.event(who, conversation_id="conv_0")
    await world.fan_out()
    await world.send()
    [heard] = world.receiver.heard
    assert heard.body["type"] == "webhook.disabled" and heard.body["data"]["webhook_id"] == webhook
    assert (await world.webhooks.one(who.tenant, witness)).status == "active"
    assert world.sql(
        "SELECT action, actor->>'role' FROM brain.audit WHERE subject = %s AND action LIKE '%%able'", webhook
    ) == [("webhook.disable", "service")]
    assert (await world.webhooks.enable(who, webhook)).status == "active"
    world.event(who, "turn.failed", conversation_id="conv_0")
    await world.fan_out()
    await world.send()
    assert world.receiver.types()[1:] == ["turn.failed"]


async def test_after_a_day_in_which_nothing_was_taken_the_webhook_is_disabled(world):
    who = world.tenant()
    webhook = await world.webhook(who)
    world.event(who, conversation_id="conv_a")
    world.event(who, conversation_id="conv_a")
    await world.fan_out()
    world.receiver.usual = 500
    day = Retry()
    await world.send(world.sender(day))
    world.sql("UPDATE brain.deliveries SET first_tried_at = first_tried_at - %s * interval '1 s'", DAY - 60)
    world.due()
    await world.send(world.sender(day))
    assert world.statuses() == ["waiting", "waiting"], "not yet"
    world.sql("UPDATE brain.deliveries SET first_tried_at = first_tried_at - interval '70 s'")
    world.due()
    await world.send(world.sender(day))
    assert world.statuses() == ["failed", "failed"]
    assert (await world.webhooks.one(who.tenant, webhook)).status == "disabled"


@pytest.mark.parametrize("killed", [False, True], ids=["between attempts", "in the middle of one"])
async def test_while_the_service_is_away_the_day_of_retries_does_not_go_on(world, killed):
    who, day = world.tenant(), Retry(jitter=0)
    webhook = await world.webhook(who)
    world.event(who, conversation_id="conv_a")
    await world.fan_out()
    world.receiver.usual = 500
    if killed:
        sender, world.receiver.go = world.sender(day), asyncio.Event()
        await sender.step()
        while world.sql("SELECT attempts FROM brain.deliveries") != [(1,)]:
            await asyncio.sleep(0.01)
        await sender.close()
        world.receiver.go = None
    else:
        await world.send(world.sender(day))
    for _ in range(2):
        world.away("3 days")
        await world.send(world.sender(day))
        assert world.statuses() == ["waiting"]
        assert (await world.webhooks.one(who.tenant, webhook)).status == "active"
    world.sql("UPDATE brain.deliveries SET first_tried_at = first_tried_at - interval '1 day'")
    world.due()
    await world.send(world.sender(day))
    assert world.statuses() == ["failed"], "a day in which it was tried ends it"
    assert (await world.webhooks.one(who.tenant, webhook)).status == "disabled"


async def test_a_subscriber_whose_attempts_are_late_because_of_each_other_is_disabled_after_its_day(world):
    """Eight at once that take ten seconds each are fewer than what is new: all that waits is tried ever later."""
    who, day = world.tenant(), Retry(delays=(5, 30), last=200, jitter=0)
    webhook = await world.webhook(who)
    world.receiver.usual = 500
    sender = world.sender(day)
    for seconds in range(0, 320, 10):
        for n in range(10):
            world.event(who, conversation_id=f"conv_{seconds}_{n}")
        await world.fan_out()
        assert await sender.step() <= 8
        await sender.settle()
        if (await world.webhooks.one(who.tenant, webhook)).status == "disabled":
            break
        world.away("10 s")
    assert seconds >= 200, "not before its day was over"
    assert (await world.webhooks.one(who.tenant, webhook)).status == "disabled"
    assert set(world.statuses()) == {"failed"}, "nothing waits"


async def test_an_absence_counts_for_every_conversation_whichever_is_tried_first(world):
    who, day = world.tenant(), Retry(jitter=0)
    webhook = await world.webhook(who)
    for n in range(12):
        world.event(who, conversation_id=f"conv_{n}")
    await world.fan_out()
    world.receiver.usual = 500
    await world.send(world.sender(day))
    world.away("3 days")
    await world.send(world.sender(day))
    assert world.sql("SELECT DISTINCT status, attempts FROM brain.deliveries") == [("waiting", 2)]
    world.sql("UPDATE brain.deliveries SET first_tried_at = first_tried_at - interval '1 day'")
    world.due()
    await world.send(world.sender(day))
    assert (await world.webhooks.one(who.tenant, webhook)).status == "disabled"


async def test_whoever_has_a_webhook_in_hand_holds_up_no_attempt_and_hides_no_absence(world):
    who, day = world.tenant(), Retry(jitter=0)
    webhook = await world.webhook(who)
    world.event(who, conversation_id="conv_a")
    await world.fan_out()
    world.receiver.usual = 500
    await world.send(world.sender(day))
    world.away("3 days")
    with psycopg.connect(world.url) as other:
        other.execute("SELECT FROM brain.webhooks WHERE id = %s FOR UPDATE", (webhook,))
        async with asyncio.timeout(20):
            await world.send(world.sender(day))
    assert world.sql("SELECT status, attempts FROM brain.deliveries") == [("waiting", 2)]


async def test_while_a_webhook_is_disabled_nobody_is_away(world):
    who, day = world.tenant(), Retry(jitter=0)
    webhook = await world.webhook(who)
    world.event(who, conversation_id="conv_a")
    await world.fan_out()
    await world.send(world.sender(day))
    await world.webhooks.disable(who, webhook)
    world.away("3 days")
    await world.webhooks.enable(who, webhook)
    world.event(who, conversation_id="conv_a")
    await world.fan_out()
    await world.send(world.sender(day))
    assert world.sql("SELECT absent < interval '1 minute' FROM brain.webhooks") == [(True,)]


async def test_however_often_the_service_is_away_a_week_ends_a_delivery_that_was_tried_as_in_a_day(world):
    who, day = world.tenant(), Retry(jitter=0)
    await world.webhook(who)
    world.event(who, conversation_id="conv_a")
    await world.fan_out()
    world.receiver.usual = 500
    await world.send(world.sender(day))
    for attempts in range(2, 9):
        assert world.statuses() == ["waiting"]
        world.away("2 days")
        await world.send(world.sender(day))
        assert world.sql("SELECT attempts FROM brain.deliveries") == [(attempts,)]
    assert world.statuses() == ["failed"]


async def test_a_delivery_that_kills_whoever_makes_it_is_made_ever_more_seldom_and_ends(world):
    who, day = world.tenant(), Retry(jitter=0)
    webhook = await world.webhook(who)
    world.event(who, conversation_id="conv_a")
    await world.fan_out()
    lanes, clock, began = world.sender(day)._lanes, 0.0, []
    while clock < DAY:
        for lane in await lanes.claim(64):
            if await lanes.first(lane) is not None:
                began.append(clock)  # and dies
        [(pause,)] = world.sql("SELECT extract(epoch FROM greatest(due, held_until) - now()) FROM brain.delivery_lanes")
        world.away(f"{float(pause) + 0.01} s")
        clock += float(pause)
    assert 4 <= sum(at < 600 for at in began) <= 6 and len(began) <= 25, "at first as for a process that just died"
    await world.send(world.sender(day))
    assert world.statuses() == ["failed"] and not world.receiver.heard, "it is not made once more"
    assert (await world.webhooks.one(who.tenant, webhook)).status == "active", "which did nothing"


async def test_what_was_taken_before_the_service_was_away_counts_for_a_webhook(world):
    who = world.tenant()
    webhook = await world.webhook(who)
    world.event(who, conversation_id="conv_a")
    await world.fan_out()
    world.receiver.answers = [500]
    await world.send(world.sender(Retry()))
    world.event(who, conversation_id="conv_b")
    await world.fan_out()
    await world.send()
    world.away("3 days")
    world.receiver.answers = [500, 500]
    await world.send(world.sender(Retry()))
    world.sql("UPDATE brain.deliveries SET first_tried_at = first_tried_at - interval '1 day' WHERE status = 'waiting'")
    world.sql("UPDATE brain.webhooks SET heard_at = heard_at - interval '1 day'")
    world.due()
    await world.send(world.sender(Retry()))
    assert world.statuses() == ["failed", "delivered"]
    assert (await world.webhooks.one(who.tenant, webhook)).status == "active", "it took another one meanwhile"


async def test_one_delivery_that_is_never_taken_does_not_disable_a_webhook_that_takes_others(world):
    who = world.tenant()
    webhook = await world.webhook(who)
    world.event(who, conversation_id="conv_a", bad=True)
    world.event(who, conversation_id="conv_a")
    await world.fan_out()
    world.receiver.answers = [500]
    await world.send(world.sender(Retry()))
    world.event(who, conversation_id="conv_b")
    await world.fan_out()
    await world.send()
    assert len(world.receiver.heard) == 1
    world.sql("UPDATE brain.deliveries SET first_tried_at = first_tried_at - interval '25 h' WHERE status = 'waiting'")
    world.due()
    world.receiver.answers = [500]
    await world.send(world.sender(Retry()))
    assert world.statuses() == ["failed", "delivered", "delivered"]
    assert (await world.webhooks.one(who.tenant, webhook)).status == "active"


async def test_after_a_rotation_both_secrets_sign_until_the_old_ones_time_is_over(world):
    who = world.tenant()
    webhook = await world.webhook(who)
    old = world.receiver.secrets[:]
    fresh = b"f" * 32
    await world.webhooks.rotate(who, webhook, fresh)
    for secrets, taken in ((old, 1), ([fresh], 2)):
        world.receiver.secrets = secrets
        world.event(who)
        await world.fan_out()
        await world.send()
        assert len(world.receiver.heard) == taken
    world.sql("UPDATE brain.webhooks SET secret_before_until = now()")
    world.receiver.secrets = old
    world.event(who)
    await world.fan_out()
    await world.send(world.sender(Retry()))
    assert world.receiver.unsigned == 1 and len(world.receiver.heard) == 2


async def test_two_senders_never_work_on_one_lane_and_a_dead_ones_lanes_are_taken_over(world):
    who = world.tenant()
    await world.webhook(who)
    for n in range(4):
        world.event(who, conversation_id="conv_a", n=n)
    await world.fan_out()
    dead = world.sender()
    world.receiver.go = asyncio.Event()
    await dead.step()
    await asyncio.sleep(0)
    other = world.sender()
    assert await other.step() == 0, "it is held"
    await dead.close()
    world.receiver.go.set()
    assert await other.step() == 0, "its lease goes on"
    world.due()
    await world.send(other)
    numbers = [one.body["data"]["n"] for one in world.receiver.heard]
    assert sorted(set(numbers)) == [0, 1, 2, 3] and numbers == sorted(numbers)


async def test_a_lease_of_a_clock_that_was_put_back_holds_nothing_up(world):
    who = world.tenant()
    await world.webhook(who)
    world.event(who, conversation_id="conv_a")
    await world.fan_out()
    world.sql("UPDATE brain.delivery_lanes SET holder = gen_random_uuid(), held_until = now() + interval '1 hour'")
    await world.send()
    assert world.statuses() == ["delivered"]


async def test_what_was_made_for_a_webhook_while_it_was_being_disabled_waits_for_nothing(world):
    who = world.tenant()
    webhook = await world.webhook(who)
    for n in range(2):
        world.event(who, conversation_id="conv_a", n=n)
    await world.fan_out()
    world.sql("UPDATE brain.webhooks SET status = 'disabled' WHERE id = %s", webhook)
    await world.send()
    assert world.statuses() == ["failed"] * 2 and not world.receiver.heard
    await world.webhooks.enable(who, webhook)
    world.event(who, "turn.failed", conversation_id="conv_a")
    await world.fan_out()
    await world.send()
    assert world.receiver.types() == ["turn.failed"]


async def test_what_a_sender_says_counts_no_more_once_another_one_has_the_lane(world):
    who = world.tenant()
    await world.webhook(who)
    world.event(who, conversation_id="conv_a")
    await world.fan_out()
    slow = world.sender()
    world.receiver.go, world.receiver.answers = asyncio.Event(), [500]
    await slow.step()
    while world.sql("SELECT attempts FROM brain.deliveries") != [(1,)]:
        await asyncio.sleep(0.01)
    world.due()
    other = world.sender()
    assert await other.step() == 1
    while world.sql("SELECT attempts FROM brain.deliveries") != [(2,)]:
        await asyncio.sleep(0.01)
    world.receiver.go.set()
    await slow.settle()
    await other.settle()
    assert len(world.receiver.refused) == 1 and len(world.receiver.heard) == 1
    assert world.statuses() == ["delivered"], "the slow one was refused, and has nothing to say"


async def test_a_subscriber_that_dawdles_holds_up_neither_its_tenant_nor_others(world):
    who, other = world.tenant(), world.tenant()
    slow = await world.webhook(who, ("message.*",))
    await world.webhook(who, ("turn.*",))
    await world.webhook(other, ("turn.*",))
    for n in range(40):
        world.event(who, "message.received", conversation_id=f"conv_{n}")
    world.event(who, conversation_id="conv_x")
    world.event(other, conversation_id="conv_y")
    await world.fan_out()
    lanes = world.sending._lanes
    held = await lanes.claim(64)
    assert sum(one.subscriber == slow for one in held) == 8
    assert len(held) == 10
    assert await lanes.claim(64) == [], "what is held counts"


async def test_a_deleted_message_is_told_by_its_id_alone_and_a_stored_one_as_it_is_stored(world):
    who = world.tenant()
    await world.webhook(who, include_content=True)
    key = make_conversation(world.url, who.tenant)
    message = new_id("msg")
    world.sql(
        "INSERT INTO brain.messages (tenant_id, conversation_id, seq, id, turn_id, turn_order, role, content, status,"
        " created_at) VALUES (%s, %s, 1, %s, 'turn_x', 1, 'assistant', 'hello', 'completed', now())",
        *(who.tenant, key.conversation, message),
    )
    world.event(who, conversation_id=key.conversation, message_id=message)
    await world.fan_out()
    await world.send()
    assert world.receiver.heard[0].body["data"]["message"]["content"] == "hello"
    world.event(who, conversation_id=key.conversation, message_id=message)
    await world.fan_out()
    world.sql("DELETE FROM brain.messages WHERE id = %s", message)
    await world.send()
    assert world.receiver.heard[1].body["data"]["message"] is None
    assert "hello" not in str(world.sql("SELECT event FROM brain.deliveries"))


async def test_a_row_that_nobody_can_read_is_set_aside_and_the_rest_goes_on(world):
    who = world.tenant()
    await world.webhook(who)
    world.sql("INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES (%s, 'turn.completed', '[1]')", who.tenant)
    world.event(who)
    await world.fan_out()
    await world.send()
    assert len(world.receiver.heard) == 1
    assert world.sql("SELECT topic FROM brain.outbox_set_aside WHERE consumer = 'deliveries'") == [("turn.completed",)]


async def test_with_a_webhook_goes_all_that_was_for_it(world):
    who = world.tenant()
    webhook = await world.webhook(who)
    world.event(who)
    await world.fan_out()
    await world.webhooks.delete(who, webhook)
    assert world.sql("SELECT count(*) FROM brain.deliveries") == [(0,)]
    assert world.sql("SELECT count(*) FROM brain.delivery_lanes") == [(0,)]
    await world.send()
    with pytest.raises(NotFound):
        await world.webhooks.one(who.tenant, webhook)


async def test_what_ended_long_ago_is_pruned_and_what_waits_is_not(world):
    who = world.tenant()
    await world.webhook(who)
    world.event(who, conversation_id="conv_a")
    await world.fan_out()
    await world.send()
    world.event(who, conversation_id="conv_b")
    await world.fan_out()
    world.sql("UPDATE brain.deliveries SET created_at = now() - interval '31 days'")
    lanes = world.sending._lanes
    while await lanes.prune(30):
        pass
    assert world.statuses() == ["waiting"]
    assert world.sql("SELECT stream FROM brain.delivery_lanes") == [("conv_b",)]


async def test_a_receiver_within_the_own_network_is_never_asked(world):
    who = world.tenant()
    await world.webhook(who)
    world.event(who)
    await world.fan_out()
    async with Outgoing() as closed:
        strict = DeliveryWorld(world.url, world.pool, closed, world.receiver)
        await strict.send(strict.sender(Retry()))
    assert world.receiver.heard == [] and world.receiver.unsigned == 0
    [(error,)] = world.sql("SELECT error FROM brain.deliveries")
    assert "https" in error or "private" in error
