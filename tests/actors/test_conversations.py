"""Conversations in their hosts: order, cancellation, take-over, and what a crash leaves behind."""

import asyncio
import time

import pytest

from benchmarks.mock_spec import reply_tokens
from domain.clarifying import OPENING, Clarification
from domain.errors import ConversationBusy, Fenced, NotFound, Overloaded, Retryable, Unavailable
from domain.events import ACCEPTED, COMPLETED, DELTA, MODEL, RESET, replay
from storage.reader import PostgresReader
from tests.storage.conftest import make_conversation, make_send
from tests.storage.test_ownership import messages

SLOW = "mock,n=40,itl=25"
FAST = "mock,n=8"


@pytest.fixture
def key(database_url, tenant):
    return make_conversation(database_url, tenant)


async def eventually(condition, patience=10.0):
    deadline = time.monotonic() + patience
    while not (found := await condition()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    return found


def text_of(events):
    return "".join(event.data["text"] for event in events if event.type == DELTA)


async def test_a_turn_streams_what_it_stores(world, key):
    host = await world.host()
    accepted = await host.send(make_send(key, model=FAST))
    events = await world.events(key.tenant, accepted.turn.id)
    assert [event.n for event in events] == list(range(1, len(events) + 1))
    assert events[0].type == ACCEPTED and events[-1].type == COMPLETED
    ended = await world.store.ended(key.tenant, accepted.turn.id)
    assert text_of(events) == ended.message.content == "".join(reply_tokens("hello", 8))
    assert ended.message.intent.name == "greeting"
    assert events[-1].data["message"] == ended.message.model_dump(mode="json")


async def test_the_stored_layout_replays_the_stream_exactly(world, key):
    host = await world.host()
    accepted = await host.send(make_send(key, model="mock,n=12,itl=3"))
    live = await world.events(key.tenant, accepted.turn.id)
    async with world.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT set_config('brain.tenant', $1, true)", key.tenant)
        layout = await connection.fetchval("SELECT layout FROM brain.turns WHERE id = $1", accepted.turn.id)
    ended = await world.store.ended(key.tenant, accepted.turn.id)
    again = replay(accepted.turn.id, 1, layout, ended.message.content)
    assert [(e.id, e.type, e.data.get("text")) for e in again] == [
        (e.id, e.type, e.data.get("text")) for e in live[:-1]
    ]


async def test_turns_are_answered_in_order_and_see_those_before(world, key):
    host = await world.host()
    model = "mock,mode=count,itl=5"
    found = await asyncio.gather(*(host.send(make_send(key, f"m{i}", model=model, wait=True)) for i in range(4)))
    assert [ended.message.content.strip() for ended in found] == ["1", "3", "5", "7"]
    rows = await messages(world.pool, key)
    assert [row["seq"] for row in rows] == list(range(1, 9))


async def test_busy_is_refused_or_interrupted_as_asked(world, key):
    host = await world.host()
    first = await host.send(make_send(key, "one", model=SLOW))
    second = await host.send(make_send(key, "two", model=FAST))
    with pytest.raises(ConversationBusy):
        await host.send(make_send(key, "three", model=FAST, on_busy="reject"))
    last = await host.send(make_send(key, "four", model=FAST, on_busy="interrupt", wait=True))
    assert last.turn.status == "completed"
    states = [(await world.store.ended(key.tenant, turn.turn.id)).turn.status for turn in (first, second)]
    assert states == ["cancelled", "cancelled"]
    assert world.mock.open_streams == 0


async def test_cancel_keeps_the_text_that_was_seen_and_closes_the_providers_stream(world, key):
    host = await world.host()
    accepted = await host.send(make_send(key, model=SLOW))
    reading = asyncio.create_task(world.events(key.tenant, accepted.turn.id))
    await eventually(lambda: _said(world, key, accepted.turn.id, 3))
    await host.cancel(key, accepted.turn.id)
    events = await reading
    ended = await world.store.ended(key.tenant, accepted.turn.id)
    assert ended.turn.status == "cancelled" and events[-1].type == "turn.cancelled"
    assert text_of(events) == ended.message.content
    assert world.mock.open_streams == 0


async def _said(world, key, turn_id, deltas, attempt=1):
    progress = await world.journal.progress(key.tenant, turn_id, attempt)
    return len([event for event in progress.events if event.type == DELTA]) >= deltas


async def test_a_dead_hosts_generation_goes_on_and_is_finished_by_the_next_owner(world, key):
    first = await world.host()
    accepted = await first.send(make_send(key, "once", model=SLOW))
    queued = await first.send(make_send(key, "then", model=FAST))
    reading = asyncio.create_task(world.events(key.tenant, accepted.turn.id))
    await eventually(lambda: _said(world, key, accepted.turn.id, 3))
    await world.kill(first)
    await world.host()
    events = await reading
    assert events[-1].type == COMPLETED and RESET not in {event.type for event in events}
    assert text_of(events) == events[-1].data["message"]["content"] == "".join(reply_tokens("once", 40))
    assert world.mock.by_user["once"] == 1
    ended = await eventually(lambda: world.store.ended(key.tenant, queued.turn.id))
    assert ended.turn.status == "completed"
    assert [row["seq"] for row in await messages(world.pool, key)] == [1, 2, 3, 4]


async def test_the_next_owner_looks_for_a_generation_where_its_models_are(world, key):
    """A local model's own replicas run it: they are found by the model, and one of them by the conversation."""
    first = await world.host()
    long = "mock,n=150,itl=25"  # it still runs when the lease is over, on a busy machine too
    accepted = await first.send(make_send(key, "once", model=long))
    await eventually(lambda: _said(world, key, accepted.turn.id, 3))
    await world.kill(first)
    await world.host()
    await eventually(lambda: _replied(world, key))
    asked, *joined = [one for one in world.llm.asked if one.turn_id == accepted.turn.id]
    assert joined and {(one.model, one.chain, one.session) for one in joined if one.join} == {(long, (), asked.session)}


async def test_the_old_owner_of_a_running_turn_is_fenced_and_says_so(world, key):
    old, new = await world.host(lease=60), await world.host(lease=60)
    waiting = asyncio.create_task(old.send(make_send(key, "once", model=SLOW, wait=True)))
    await eventually(lambda: _owned(world, key))
    await new.resume(key)
    with pytest.raises(Fenced):
        await waiting
    rows = await eventually(lambda: _replied(world, key))
    assert len(rows) == 2 and world.mock.by_user["once"] == 1
    assert (await old.send(make_send(key, "again", model=FAST, wait=True))).turn.status == "completed"


async def _owned(world, key):
    return len(await messages(world.pool, key)) == 1


async def _replied(world, key):
    rows = await messages(world.pool, key)
    return rows if rows and rows[-1]["role"] == "assistant" else None


async def test_a_lost_generation_is_reset_and_begun_again(world, key):
    host = await world.host()
    accepted = await host.send(make_send(key, "lost", model=SLOW))
    reading = asyncio.create_task(world.events(key.tenant, accepted.turn.id))
    await eventually(lambda: _said(world, key, accepted.turn.id, 3))
    await world.llm.die()
    events = await reading
    attempts = [event.attempt for event in events]
    assert attempts == sorted(attempts) and events[-1].attempt == 2
    second = [event for event in events if event.attempt == 2]
    assert second[0].type == RESET and [event.n for event in second] == list(range(1, len(second) + 1))
    assert text_of(second) == "".join(reply_tokens("lost", 40))
    ended = await world.store.ended(key.tenant, accepted.turn.id)
    assert ended.turn.attempt == 2 and ended.message.content == text_of(second)


async def test_a_turn_whose_third_attempt_is_lost_has_failed(world, key):
    host = await world.host()
    accepted = await host.send(make_send(key, "doomed", model=SLOW))
    for attempt in (1, 2, 3):
        await eventually(lambda n=attempt: _said(world, key, accepted.turn.id, 2, n), 20)
        await world.llm.die()
    ended = await eventually(lambda: world.store.ended(key.tenant, accepted.turn.id), 20)
    assert ended.turn.status == "failed" and ended.turn.attempt == 3


async def test_a_model_that_may_reset_is_asked_again_after_its_stream_broke(world, key):
    host = await world.host()
    ended = await host.send(make_send(key, "cut", model="resets", wait=True))
    assert ended.turn.status == "failed" and ended.turn.attempt == 3
    assert world.mock.by_user["cut"] == 3


async def test_a_failed_turn_keeps_its_partial_text(world, key):
    host = await world.host()
    ended = await host.send(make_send(key, "cut", model="mock,n=20,fault=cut,at=5,itl=2", wait=True))
    assert ended.turn.status == "failed" and ended.message.status == "failed"
    assert ended.message.content == "".join(reply_tokens("cut", 20)[:5])


async def test_without_a_classifier_a_turn_has_no_intent(world, key):
    world.classifier.away = True
    host = await world.host()
    ended = await host.send(make_send(key, model="auto", wait=True))
    assert ended.turn.status == "completed" and ended.message.intent is None


async def test_auto_names_the_model_after_the_intent(world, key):
    host = await world.host()
    accepted = await host.send(make_send(key, model="auto"))
    types = [event.type for event in await world.events(key.tenant, accepted.turn.id)]
    assert types.index("turn.intent") < types.index(MODEL) < types.index(DELTA)


async def test_a_doubt_is_told_with_the_intent_and_asked_by_the_built_in_model(world, key):
    question = f"{OPENING} Is this about “refund” or “parcel”?"
    world.classifier.clarification = Clarification(question, ("refund", "parcel"))
    world.rules.are(default="scripted")
    host = await world.host()
    ended = await host.send(make_send(key, "hm", model="auto", wait=True))
    assert ended.message.model == "scripted" and ended.message.content.endswith(question)
    [told] = [event for event in await world.events(key.tenant, ended.turn.id) if event.type == "turn.intent"]
    assert told.data["clarification"] == {"question": question, "intents": ["refund", "parcel"]}
    ended = await host.send(make_send(key, "well", model="auto", wait=True))
    assert OPENING not in ended.message.content, "not twice in a row"
    ended = await host.send(make_send(key, "hm", model="mock,n=3", wait=True))
    assert ended.message.content == "".join(reply_tokens("hm", 3)), "nothing more for a model that was named"


async def test_what_a_message_was_taken_to_mean_is_kept(world, key):
    host = await world.host()
    ended = await host.send(make_send(key, model="auto", wait=True))
    content, found = await PostgresReader(world.pool).understanding(key.tenant, ended.user_message.id)
    assert content == ended.user_message.content
    assert (found["intent"]["name"], found["version"], found["clarification"]) == ("greeting", 3, None)
    _, found = await PostgresReader(world.pool).understanding(key.tenant, ended.message.id)
    assert found is None, "a reply asks for nothing"


async def test_an_idle_conversation_is_put_away_and_comes_back(world, key):
    host = await world.host(idle=0.0)
    await host.send(make_send(key, "one", model=FAST, wait=True))

    async def empty():
        return host.hot == 0

    await eventually(empty)
    ended = await host.send(make_send(key, "two", model="mock,mode=count", wait=True))
    assert ended.message.content.strip() == "3"


async def test_memory_is_bounded_by_putting_the_least_recently_used_away(world, database_url, tenant):
    host = await world.host(hot_bytes=30_000)
    keys = [make_conversation(database_url, tenant) for _ in range(12)]
    for key in keys:
        await host.send(make_send(key, "x" * 3000, model=FAST, wait=True))

    async def small():
        return host.hot_bytes <= 30_000

    await eventually(small)
    assert keys[-1] in host._actors and keys[0] not in host._actors


async def test_a_full_mailbox_refuses_and_a_deleted_conversation_ends_everyones_turns(world, key):
    host = await world.host(unfinished=2)
    waiting = [asyncio.create_task(host.send(make_send(key, f"m{i}", model=SLOW, wait=True))) for i in range(2)]
    await eventually(lambda: _count(world, key, 2))
    with pytest.raises(Overloaded):
        await host.send(make_send(key, "one too many", model=FAST))
    await host.delete(key)
    assert [ended.turn.status for ended in await asyncio.gather(*waiting)] == ["cancelled"] * 2
    with pytest.raises(NotFound):
        await host.send(make_send(key, model=FAST))


async def test_a_host_takes_no_more_turns_than_it_may_hold_whosever_they_are(world, database_url, tenant):
    host = await world.host(turns=2)
    keys = [make_conversation(database_url, tenant) for _ in range(3)]
    for key in keys[:2]:
        await host.send(make_send(key, model=SLOW))
    with pytest.raises(Overloaded):
        await host.send(make_send(keys[2], model=FAST))
    await host.delete(keys[0])

    async def taken():
        try:
            return await host.send(make_send(keys[2], model=FAST))
        except Overloaded:
            return None

    await eventually(taken)


async def _count(world, key, n):
    return len(await messages(world.pool, key)) == n


async def test_a_stopping_host_settles_whoever_waits(world, key):
    host = await world.host()
    waiting = asyncio.create_task(host.send(make_send(key, model=SLOW, wait=True)))
    await eventually(lambda: _count(world, key, 1))
    await host.stop()
    with pytest.raises(Retryable):
        await waiting


async def test_a_turn_that_its_owner_has_lost_is_taken_up_again(world, key):
    """As after an accept whose answer was lost: Postgres has the turn, and the living owner knows nothing of it."""
    host = await world.host(lease=0.3)
    await host.send(make_send(key, "first", model=FAST, wait=True))
    actor = host._actors[key]
    lost = await world.store.accept(key, actor._owner, make_send(key, "lost", model=FAST))
    ended = await eventually(lambda: world.store.ended(key.tenant, lost.turn.id))
    assert ended.turn.status == "completed" and len(await messages(world.pool, key)) == 4


async def test_a_message_behind_a_turn_that_its_owner_has_lost_is_answered(world, key):
    host = await world.host(lease=60)
    await host.send(make_send(key, "first", model=FAST, wait=True))
    await world.store.accept(key, host._actors[key]._owner, make_send(key, "lost", model=FAST))
    send = make_send(key, "behind it", model="mock,mode=count", wait=True)
    with pytest.raises(Fenced):
        await host.send(send)
    ended = await host.send(send)
    assert ended.message.content.strip() == "5" and len(await messages(world.pool, key)) == 6


async def test_a_queued_turn_that_is_inherited_says_its_opening_once(world, key):
    first = await world.host()
    await first.send(make_send(key, "once", model=SLOW))
    queued = await first.send(make_send(key, "then", model=FAST))
    await world.kill(first)
    await world.host()
    events = await world.events(key.tenant, queued.turn.id)
    assert [event.type for event in events].count(ACCEPTED) == 1
    assert [event.n for event in events] == list(range(1, len(events) + 1))


async def test_a_turn_that_is_inherited_can_be_cancelled_at_once(world, key):
    first = await world.host()
    accepted = await first.send(make_send(key, "long", model="mock,n=2000,itl=25"))
    await eventually(lambda: _said(world, key, accepted.turn.id, 2))
    await world.kill(first)
    second = await world.host()
    await second.resume(key)
    await second.cancel(key, accepted.turn.id)
    assert (await world.store.ended(key.tenant, accepted.turn.id)).turn.status == "cancelled"
    assert world.mock.open_streams == 0


async def test_without_redis_turns_still_commit(world, key, monkeypatch):
    from deployments.hosted_llm import HostedLLM
    from storage.journal import RedisJournal
    from storage.redis import open_redis

    away = RedisJournal(open_redis("redis://127.0.0.1:1"))
    world.journal = away
    world.llm.current = HostedLLM(away, world.catalog)
    host = await world.host()
    accepted = await host.send(make_send(key, model=FAST))
    assert accepted.journalled is False
    ended = await eventually(lambda: world.store.ended(key.tenant, accepted.turn.id))
    assert ended.message.content == "".join(reply_tokens("hello", 8))


async def test_a_conversation_that_stands_still_is_taken_up_anew(world, key, monkeypatch):
    """Whatever hangs in one piece of its work: callers are told to come again, and the next one finds it working."""
    monkeypatch.setattr("actors.mailbox.LONGEST", 0.1)
    host = await world.host()
    real, hung = host.parts.store.activate, []

    async def activate(*arguments):
        if not hung:
            hung.append(True)
            await asyncio.Event().wait()
        return await real(*arguments)

    monkeypatch.setattr(host.parts.store, "activate", activate)
    with pytest.raises(Unavailable):
        await host.send(make_send(key, "hello", wait=True))
    monkeypatch.setattr("actors.mailbox.LONGEST", 30.0)
    ended = await host.send(make_send(key, "hello again", wait=True))
    assert ended.turn.status == "completed"
