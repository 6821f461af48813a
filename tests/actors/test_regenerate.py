"""Replies made anew: what the model is told, what stands in later prompts, and what stays readable."""

import asyncio
import json

import pytest

from domain.errors import ConversationEnded, IdempotencyMismatch, MessageGone
from domain.events import ACCEPTED, COMPLETED
from domain.ids import new_id
from storage.reader import PostgresReader
from tests.actors.test_conversations import FAST, SLOW, _said, eventually
from tests.storage.conftest import make_conversation, make_send
from tests.storage.test_ownership import messages

PROMPT = "mock,mode=prompt"


@pytest.fixture
def key(database_url, tenant):
    return make_conversation(database_url, tenant)


def again(key, message_id, **fields):
    return make_send(key, "", **{"regenerates": message_id, "wait": True, **fields})


def told(ended):
    return [(one["role"], one["content"]) for one in json.loads(ended.message.content)]


async def test_a_regenerated_reply_is_asked_for_as_the_first_one_was_and_stands_in_its_place(world, key):
    host = await world.host()
    first = await host.send(make_send(key, "one", model=FAST, wait=True))
    second = await host.send(make_send(key, "two", model=PROMPT, wait=True))
    anew = await host.send(again(key, second.message.id, model=PROMPT))
    assert told(anew) == told(second) == [("user", "one"), ("assistant", first.message.content), ("user", "two")]
    assert anew.user_message.id == second.user_message.id and anew.message.seq == 5
    other = await host.send(again(key, second.user_message.id, model="mock,n=3"))
    after = await host.send(make_send(key, "three", model=PROMPT, wait=True))
    assert told(after)[2:] == [("user", "two"), ("assistant", other.message.content), ("user", "three")]
    rows = await messages(world.pool, key)
    assert [row["seq"] for row in rows] == list(range(1, 9))
    reader = PostgresReader(world.pool)
    assert (await reader.message(key.tenant, second.message.id))[1].content == second.message.content


async def test_the_next_owner_tells_the_newest_version(world, key):
    host = await world.host()
    first = await host.send(make_send(key, "one", model=FAST, wait=True))
    anew = await host.send(again(key, first.message.id, model="mock,n=3"))
    await world.kill(host)
    after = await (await world.host()).send(make_send(key, "two", model=PROMPT, wait=True))
    assert told(after) == [("user", "one"), ("assistant", anew.message.content), ("user", "two")]


async def test_an_earlier_reply_is_made_anew_with_what_was_said_before_it(world, key):
    host = await world.host()
    for text in ("one", "two", "three"):
        await host.send(make_send(key, text, model=FAST, wait=True))
    rows = await messages(world.pool, key)
    stored = await PostgresReader(world.pool).stored_turn(key.tenant, (await _turns(world, key))[1])
    anew = await host.send(again(key, stored.user_message.id, model=PROMPT))
    assert told(anew) == [("user", "one"), ("assistant", rows[1]["content"]), ("user", "two")]
    assert [row["content"] for row in rows] == [row["content"] for row in (await messages(world.pool, key))[:6]]


async def test_a_reply_beyond_the_window_is_made_anew_with_the_history_of_then(world, key):
    host = await world.host(context_messages=4)
    for index in range(6):
        await host.send(make_send(key, f"m{index}", model=FAST, wait=True))
    window = host._actors[key]._window
    start = window.start
    assert start > 3
    stored = await PostgresReader(world.pool).stored_turn(key.tenant, (await _turns(world, key))[1])
    anew = await host.send(again(key, stored.message.id, model=PROMPT))
    assert [text for role, text in told(anew) if role == "user"] == ["m0", "m1"]
    assert window.start == start and all(message.order >= start for message in window.messages)


async def _turns(world, key):
    from storage.postgres import reading

    async with reading(world.pool, key.tenant) as connection:
        found = await connection.fetch(
            "SELECT id FROM brain.turns WHERE conversation_id = $1 ORDER BY created_at", key.conversation
        )
    return [row["id"] for row in found]


async def test_the_stream_of_a_regenerated_turn_begins_with_the_message_that_it_answers(world, key):
    host = await world.host()
    first = await host.send(make_send(key, "one", model=FAST, wait=True))
    accepted = await host.send(again(key, first.message.id, model=FAST, wait=False))
    assert accepted.user_message.id == first.user_message.id
    events = await world.events(key.tenant, accepted.turn.id)
    assert events[0].type == ACCEPTED and events[-1].type == COMPLETED
    assert events[0].data["user_message"]["id"] == first.user_message.id
    assert events[-1].data["message"]["turn_id"] == accepted.turn.id


async def test_a_failed_or_cancelled_version_leaves_the_one_that_stands(world, key):
    host = await world.host()
    first = await host.send(make_send(key, "one", model=FAST, wait=True))
    failed = await host.send(again(key, first.message.id, model="mock,n=9,fault=cut,at=3"))
    assert failed.turn.status == "failed" and failed.message.content
    accepted = await host.send(again(key, first.message.id, model=SLOW, wait=False))
    await eventually(lambda: _said(world, key, accepted.turn.id, 2))
    await host.cancel(key, accepted.turn.id)
    after = await host.send(make_send(key, "two", model=PROMPT, wait=True))
    assert told(after) == [("user", "one"), ("assistant", first.message.content), ("user", "two")]


async def test_regenerating_waits_its_turn_and_is_answered_once_for_one_key(world, key):
    host = await world.host()
    first = await host.send(make_send(key, "one", model=FAST, wait=True))
    running = await host.send(make_send(key, "two", model=SLOW))
    same = {"idempotency_key": new_id("req"), "body_hash": b"same", "model": FAST}
    found = await asyncio.gather(*(host.send(again(key, first.message.id, **same)) for _ in range(5)))
    assert len({ended.turn.id for ended in found}) == 1 and sum(not ended.replayed for ended in found) == 1
    assert (await world.store.ended(key.tenant, running.turn.id)).turn.status == "completed"
    assert found[0].message.seq == 5
    with pytest.raises(IdempotencyMismatch):
        await host.send(again(key, first.message.id, **{**same, "body_hash": b"other"}))


async def test_a_queued_regeneration_outlives_its_host(world, key):
    host = await world.host()
    first = await host.send(make_send(key, "one", model=FAST, wait=True))
    await host.send(make_send(key, "two", model=SLOW))
    queued = await host.send(again(key, first.message.id, model=PROMPT, wait=False))
    await world.kill(host)
    await world.host()
    ended = await eventually(lambda: world.store.ended(key.tenant, queued.turn.id), 20)
    assert ended.turn.status == "completed" and told(ended) == [("user", "one")]
    events = await world.events(key.tenant, queued.turn.id)
    assert [event.n for event in events] == list(range(1, len(events) + 1))


async def test_what_is_not_there_cannot_be_regenerated_and_the_conversation_goes_on(world, key):
    host = await world.host()
    first = await host.send(make_send(key, "one", model=FAST, wait=True))
    actor = host._actors[key]
    for missing in (new_id("msg"), (await _elsewhere(world, host, key)).message.id):
        with pytest.raises(MessageGone):
            await host.send(again(key, missing))
    assert host._actors[key] is actor
    await world.store.change(key, actor._owner, {}, True)
    with pytest.raises(ConversationEnded):
        await host.send(again(key, first.message.id))


async def _elsewhere(world, host, key):
    other = make_conversation(world.database_url, key.tenant)
    return await host.send(make_send(other, "one", model=FAST, wait=True))
