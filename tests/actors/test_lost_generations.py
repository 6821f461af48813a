"""Generations whose process died: gone on from their text where the model allows it, and paid for either way."""

import asyncio

import pytest

from benchmarks.mock_spec import reply_tokens
from domain.events import COMPLETED, DELTA, MODEL, RESET, replay
from storage.postgres import reading
from storage.reader import PostgresReader
from tests.actors.test_conversations import SLOW, _said, eventually, text_of
from tests.storage.conftest import make_conversation, make_send


@pytest.fixture
def key(database_url, tenant):
    return make_conversation(database_url, tenant)


async def ledger(world, key, turn_id):
    async with reading(world.pool, key.tenant) as connection:
        return await connection.fetch(
            "SELECT attempt, call, model, why, prompt_tokens, completion_tokens, estimated, reply FROM brain.usage"
            " WHERE turn_id = $1 ORDER BY attempt, call",
            turn_id,
        )


async def test_a_lost_text_is_gone_on_from_where_the_model_allows_it(world, key):
    host = await world.host()
    accepted = await host.send(make_send(key, "go on", model="goes-on"))
    reading_all = asyncio.create_task(world.events(key.tenant, accepted.turn.id))
    await eventually(lambda: _said(world, key, accepted.turn.id, 3))
    await world.llm.die()
    lost = text_of((await world.journal.progress(key.tenant, accepted.turn.id, 1)).events)
    events = await reading_all
    assert [event.n for event in events] == list(range(1, len(events) + 1))
    assert {event.attempt for event in events} == {1} and RESET not in {event.type for event in events}
    assert [event.type for event in events].count(MODEL) == 1 and events[-1].type == COMPLETED
    ended = await world.store.ended(key.tenant, accepted.turn.id)
    assert text_of(events) == ended.message.content == "".join(reply_tokens("go on", 40))
    assert ended.message.content.startswith(lost) and world.mock.by_user["go on"] == 2
    stored = await PostgresReader(world.pool).stored_turn(key.tenant, accepted.turn.id)
    rebuilt = replay(accepted.turn.id, 1, stored.layout, stored.message.content)
    assert [(e.id, e.data.get("text")) for e in rebuilt] == [(e.id, e.data.get("text")) for e in events[:-1]]
    first, second = await ledger(world, key, accepted.turn.id)
    assert (first["call"], first["estimated"], first["reply"]) == (1, True, True) and first["completion_tokens"] > 0
    assert (second["call"], second["estimated"]) == (2, False)


async def test_what_went_on_too_often_has_failed_with_its_text(world, key):
    host = await world.host()
    accepted = await host.send(make_send(key, "doomed", model="goes-on"))
    seen = 0
    for _ in range(3):
        await eventually(lambda more=seen + 2: _said(world, key, accepted.turn.id, more), 20)
        await world.llm.die()
        seen = len((await world.journal.progress(key.tenant, accepted.turn.id, 1)).events)
    ended = await eventually(lambda: world.store.ended(key.tenant, accepted.turn.id), 20)
    assert (ended.turn.status, ended.turn.attempt, ended.message.status) == ("failed", 1, "failed")
    events = await world.events(key.tenant, accepted.turn.id)
    assert text_of(events) == ended.message.content
    assert [row["call"] for row in await ledger(world, key, accepted.turn.id)] == [1, 2, 3]


async def test_a_lost_text_is_gone_on_from_by_the_next_owner(world, key):
    first = await world.host()
    accepted = await first.send(make_send(key, "both die", model="goes-on"))
    await eventually(lambda: _said(world, key, accepted.turn.id, 3))
    await world.kill(first)
    await world.llm.die()
    lost = text_of((await world.journal.progress(key.tenant, accepted.turn.id, 1)).events)
    await world.host()
    ended = await eventually(lambda: world.store.ended(key.tenant, accepted.turn.id), 20)
    assert ended.turn.status == "completed" and ended.turn.attempt == 1
    assert ended.message.content == "".join(reply_tokens("both die", 40)) != lost
    assert ended.message.content.startswith(lost) and world.mock.by_user["both die"] == 2


async def test_a_lost_text_is_kept_where_its_model_may_not_go_on_any_more(world, key):
    host = await world.host()
    accepted = await host.send(make_send(key, "forbidden", model="goes-on"))
    await eventually(lambda: _said(world, key, accepted.turn.id, 3))
    world.rules.are(allowed=["cheap"])
    await world.llm.die()
    ended = await eventually(lambda: world.store.ended(key.tenant, accepted.turn.id), 20)
    assert (ended.turn.status, ended.turn.error["code"]) == ("failed", "model_not_found")
    assert ended.message.content and "".join(reply_tokens("forbidden", 40)).startswith(ended.message.content)
    assert text_of(await world.events(key.tenant, accepted.turn.id)) == ended.message.content


async def test_a_turn_that_went_on_can_be_cancelled(world, key):
    host = await world.host()
    accepted = await host.send(make_send(key, "stop", model="goes-on"))
    await eventually(lambda: _said(world, key, accepted.turn.id, 2))
    await world.llm.die()
    before = await _deltas(world, key, accepted.turn.id)
    await eventually(lambda: _said(world, key, accepted.turn.id, before + 2))
    await host.cancel(key, accepted.turn.id)
    ended = await world.store.ended(key.tenant, accepted.turn.id)
    events = await world.events(key.tenant, accepted.turn.id)
    assert ended.turn.status == "cancelled" and text_of(events) == ended.message.content


async def _deltas(world, key, turn_id):
    events = (await world.journal.progress(key.tenant, turn_id, 1)).events
    return len([event for event in events if event.type == DELTA])


async def test_an_attempt_that_was_lost_is_charged_for_as_its_text_tells(world, key):
    host = await world.host()
    accepted = await host.send(make_send(key, "lost", model=SLOW))
    await eventually(lambda: _said(world, key, accepted.turn.id, 3))
    await world.llm.die()
    said = text_of((await world.journal.progress(key.tenant, accepted.turn.id, 1)).events)
    await eventually(lambda: world.store.ended(key.tenant, accepted.turn.id))
    lost, whole = await ledger(world, key, accepted.turn.id)
    assert (lost["attempt"], lost["model"], lost["estimated"], lost["reply"]) == (1, SLOW, True, False)
    assert lost["completion_tokens"] == (len(said) + 3) // 4 and lost["prompt_tokens"] > 0
    assert (whole["attempt"], whole["estimated"], whole["reply"]) == (2, False, True)
