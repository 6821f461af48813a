"""Redis has lost what was said of a turn, and its owner is gone: readers are told again, in another attempt."""

import asyncio

import pytest

from benchmarks.mock_spec import reply_tokens
from domain.errors import JournalUnavailable
from domain.events import DELTA, INTENT, RESET, TERMINAL
from storage.redis import open_redis
from tests.actors.test_conversations import FAST, SLOW, _said, eventually
from tests.storage.conftest import make_conversation, make_send


@pytest.fixture
def key(database_url, tenant):
    return make_conversation(database_url, tenant)


async def flush(world, key, turn_id):
    async with open_redis(world.redis_url) as redis:
        found = [name async for name in redis.scan_iter(match=f"brain:{key.tenant}:{{{turn_id}}}:*")]
        assert found
        await redis.delete(*found)


async def half_told(world, key):
    """A turn whose first deltas somebody may have read."""
    first = await world.host()
    accepted = await first.send(make_send(key, "once", model=SLOW))
    await eventually(lambda: _said(world, key, accepted.turn.id, 3))
    return first, accepted.turn.id


async def test_its_generation_goes_on_and_its_text_is_told_from_the_beginning(world, key):
    first, turn = await half_told(world, key)
    await world.kill(first)
    await flush(world, key, turn)
    await world.host()
    ended = await eventually(lambda: world.store.ended(key.tenant, turn))
    whole = "".join(reply_tokens("once", 40))
    assert (ended.turn.status, ended.turn.attempt, ended.message.content) == ("completed", 2, whole)
    assert world.mock.by_user["once"] == 1, "nobody was asked again"
    first_entry, *deltas = (await world.reader.stored_turn(key.tenant, turn)).layout
    assert first_entry["type"] == RESET and deltas == [len(whole)]


async def test_cancelled_it_says_so_in_another_attempt(world, key):
    first, turn = await half_told(world, key)
    await world.kill(first)
    await world.llm.die()
    await flush(world, key, turn)
    await world.reader.request_cancel(key.tenant, turn)
    await world.host()
    ended = await eventually(lambda: world.store.ended(key.tenant, turn))
    assert (ended.turn.status, ended.turn.attempt) == ("cancelled", 2)
    assert [one["type"] for one in (await world.reader.stored_turn(key.tenant, turn)).layout] == [RESET]


async def test_with_its_generation_another_attempt_begins(world, key):
    first, turn = await half_told(world, key)
    await world.kill(first)
    await world.llm.die()
    await flush(world, key, turn)
    await world.host()
    ended = await eventually(lambda: world.store.ended(key.tenant, turn))
    assert (ended.turn.status, ended.turn.attempt) == ("completed", 2)
    assert ended.message.content == "".join(reply_tokens("once", 40))


async def test_its_owner_knows_the_text_and_goes_on(world, key):
    """Only the journal is lost: what was told stays as it was, and the rest follows it."""
    _, turn = await half_told(world, key)
    before = [event async for event in _told(world, key, turn)]
    await flush(world, key, turn)
    ended = await eventually(lambda: world.store.ended(key.tenant, turn))
    assert (ended.turn.status, ended.turn.attempt) == ("completed", 1)
    stored = await world.reader.stored_turn(key.tenant, turn)
    rebuilt = [entry for entry in stored.layout if isinstance(entry, int)]
    assert rebuilt[: len(before)] == [len(event.data["text"]) for event in before]
    assert sum(rebuilt) == len(ended.message.content)


async def _told(world, key, turn):
    progress = await world.journal.progress(key.tenant, turn, 1)
    for event in progress.events:
        if event.type == DELTA:
            yield event


async def test_a_later_attempt_that_no_journal_held_is_told_whole(world, key, monkeypatch):
    _, turn = await half_told(world, key)

    async def away(*args, **kwargs):
        raise JournalUnavailable("away")

    for name in ("append", "claim", "write", "progress"):
        monkeypatch.setattr(world.journal, name, away)
    await world.llm.die()
    ended = await eventually(lambda: world.store.ended(key.tenant, turn))
    assert (ended.turn.status, ended.turn.attempt) == ("completed", 2)
    opening, *_, text = (await world.reader.stored_turn(key.tenant, turn)).layout
    assert opening["type"] == RESET and text == len(ended.message.content)


async def test_nothing_is_said_in_an_attempt_whose_opening_is_not_there(world, key, monkeypatch):
    """The journal is away for the opening and back for the intent: no stream begins with that."""
    append = world.journal.append

    async def away_at_first(tenant, turn_id, attempt, events, after=0, epoch=0):
        if events[0][0] != INTENT:
            raise JournalUnavailable("away")
        return await append(tenant, turn_id, attempt, events, after, epoch)

    monkeypatch.setattr(world.journal, "append", away_at_first)
    host = await world.host()
    accepted = await host.send(make_send(key, "once", model="mock,n=8"))
    await eventually(lambda: world.store.ended(key.tenant, accepted.turn.id))
    progress = await world.journal.progress(key.tenant, accepted.turn.id, 1)
    assert progress.events == []


async def test_an_intent_whose_write_was_not_answered_stands_in_what_is_stored(world, key, monkeypatch):
    """Readers may have had it."""
    append = world.journal.append

    async def unanswered(tenant, turn_id, attempt, events, after=0, epoch=0):
        told = await append(tenant, turn_id, attempt, events, after, epoch)
        if events[0][0] == INTENT:
            raise JournalUnavailable("the answer was lost")
        return told

    monkeypatch.setattr(world.journal, "append", unanswered)
    host = await world.host()
    accepted = await host.send(make_send(key, "once", model=FAST))
    await eventually(lambda: world.store.ended(key.tenant, accepted.turn.id))
    streamed = (await world.journal.progress(key.tenant, accepted.turn.id, 1)).events
    stored = (await world.reader.stored_turn(key.tenant, accepted.turn.id)).layout
    assert INTENT in {event.type for event in streamed}
    assert kinds(stored) == [event.type for event in streamed if event.type not in TERMINAL]


@pytest.mark.parametrize(("model", "asked"), [(SLOW, 2), ("auto", 1)])
async def test_an_owner_that_only_stood_still_says_nothing_in_the_next_ones_stream(world, key, model, asked):
    """It classified when it was stopped, and goes on with that. `asked`: generations, once the next one has begun."""
    classifying, go_on = asyncio.Event(), asyncio.Event()
    classify = world.classifier.classify

    async def held(text, tenant=""):
        classifying.set()
        await go_on.wait()
        return await classify(text, tenant)

    async def begun():
        return len(world.llm.asked) == asked

    world.classifier.classify = held
    first = await world.host()
    accepted = await first.send(make_send(key, "once", model=model))
    await classifying.wait()
    world.classifier.classify = classify
    for loop in first._loops:  # its lease runs out, and it does not know
        loop.cancel()
    await world.host()
    await eventually(begun)
    go_on.set()
    await eventually(lambda: world.store.ended(key.tenant, accepted.turn.id))
    streamed = (await world.journal.progress(key.tenant, accepted.turn.id, 1)).events
    stored = (await world.reader.stored_turn(key.tenant, accepted.turn.id)).layout
    assert kinds(stored) == [event.type for event in streamed if event.type not in TERMINAL]
    assert [event.type for event in streamed].count(INTENT) == asked % 2


def kinds(layout):
    return [DELTA if isinstance(entry, int) else entry["type"] for entry in layout]
