"""The journal and its follower, on a real Redis."""

import asyncio
import uuid
from contextlib import aclosing

import pytest

from domain.errors import JournalUnavailable, Overloaded
from domain.events import ACCEPTED, COMPLETED, DELTA, INTENT, RESET, Position
from domain.generation import GenerationRequest, Outcome
from domain.ids import new_id
from storage.follower import RedisFollower
from storage.journal import RedisJournal, stream_key
from storage.redis import open_redis

TENANT = "ten_j"


@pytest.fixture
async def redis(redis_url):
    client = open_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def journal(redis_url):
    journal = RedisJournal(open_redis(redis_url), claim=0.3)
    yield journal
    await journal.close()


@pytest.fixture
async def follower(redis_url):
    follower = RedisFollower(open_redis(redis_url), open_redis(redis_url, 10), idle=0.2, bound=50)
    yield follower
    await follower.close()


def request(turn=None, attempt=1):
    return GenerationRequest(TENANT, turn or new_id("turn"), attempt, "m", [])


async def read(follower, turn, position=None, until=COMPLETED):
    found = []
    async with asyncio.timeout(10), aclosing(follower.follow(TENANT, turn, position or Position())) as batches:
        async for batch in batches:
            found += batch
            if found and found[-1].type == until:
                break
    return found


async def test_numbers_have_no_gap_whoever_writes(journal):
    asked, writer = request(), uuid.uuid4().hex
    assert await journal.claim(asked, writer)
    await asyncio.gather(
        *(journal.write(asked, writer, (f"w{i}",), 0) for i in range(20)),
        *(journal.append(TENANT, asked.turn_id, 1, [(INTENT, {"i": i})]) for i in range(20)),
    )
    progress = await journal.progress(TENANT, asked.turn_id, 1)
    assert [event.n for event in progress.events] == list(range(1, 41)) and progress.alive


async def test_an_attempt_opens_once_although_its_owner_says_so_again(journal):
    """The answer to the first time was lost."""
    turn = new_id("turn")
    assert await journal.append(TENANT, turn, 1, [(ACCEPTED, {"user_message": None})]) == 1
    assert await journal.append(TENANT, turn, 1, [(ACCEPTED, {"user_message": None}), (INTENT, {"intent": None})]) == 2
    events = (await journal.progress(TENANT, turn, 1)).events
    assert [(event.n, event.type) for event in events] == [(1, ACCEPTED), (2, INTENT)]


async def test_an_owner_of_before_says_nothing_in_a_stream_that_another_one_has_taken_over(journal):
    """It only stood still, and does not know."""
    turn = new_id("turn")
    assert await journal.append(TENANT, turn, 1, [(ACCEPTED, {})], epoch=3) == 1
    assert [event.n for event in (await journal.progress(TENANT, turn, 1, epoch=4)).events] == [1]
    assert await journal.append(TENANT, turn, 1, [(INTENT, {"late": True})], 1, epoch=3) is None
    await journal.supersede(TENANT, turn, 1, epoch=3)
    assert not (await journal.progress(TENANT, turn, 1, epoch=3)).closed, "and it takes nothing back by reading"
    assert await journal.append(TENANT, turn, 1, [(INTENT, {"late": True})], 1, epoch=3) is None
    assert await journal.append(TENANT, turn, 1, [(INTENT, {})], 1, epoch=4) == 2
    assert await journal.append(TENANT, turn, 1, [(COMPLETED, {})], 2) == 3


async def test_a_sealed_stream_takes_its_end_and_nothing_else(journal):
    asked, writer = request(), "w"
    await journal.claim(asked, writer)
    assert await journal.write(asked, writer, ("a", "b"), 0) == 2
    await journal.seal(asked, writer, Outcome("completed", "ab", "m", "stop", deltas=((1, 1), (2, 1))))
    assert await journal.append(TENANT, asked.turn_id, 1, [(INTENT, {})]) is None
    assert await journal.write(asked, writer, ("late",), 2) is None
    assert not await journal.claim(asked, "another")
    progress = await journal.progress(TENANT, asked.turn_id, 1)
    assert progress.sealed.finish_reason == "stop" and progress.sealed.text == "" and not progress.alive
    assert await journal.append(TENANT, asked.turn_id, 1, [(COMPLETED, {"message": None})], 2) == 3
    assert await journal.append(TENANT, asked.turn_id, 1, [(COMPLETED, {})]) is None


async def test_the_owner_adds_text_to_a_sealed_stream_which_stays_sealed(journal):
    asked, writer = request(), "w"
    await journal.claim(asked, writer)
    assert await journal.write(asked, writer, ("a",), 0) == 1
    await journal.seal(asked, writer, Outcome("completed", "a", "m", "stop", deltas=((1, 1),)))
    assert await journal.append(TENANT, asked.turn_id, 1, [(DELTA, {"text": "!"})], 1) is None, "nobody but the owner"
    assert await journal.append(TENANT, asked.turn_id, 1, [(DELTA, {"text": "b"})], 1, epoch=2) == 2
    assert await journal.write(asked, writer, ("late",), 2) is None
    assert await journal.append(TENANT, asked.turn_id, 1, [(INTENT, {})], 2, epoch=2) is None
    progress = await journal.progress(TENANT, asked.turn_id, 1, epoch=3)
    assert [event.data.get("text") for event in progress.events] == ["a", "b"]
    assert progress.sealed.finish_reason == "stop" and not progress.alive and not progress.closed
    assert await journal.append(TENANT, asked.turn_id, 1, [(DELTA, {"text": "c"})], 2, epoch=2) is None
    assert await journal.append(TENANT, asked.turn_id, 1, [(COMPLETED, {"message": None})], 2, epoch=3) == 3


async def test_an_attempt_has_one_writer_until_its_heartbeat_stops(journal):
    asked = request()
    assert await journal.claim(asked, "one")
    assert not await journal.claim(asked, "two")
    assert await journal.write(asked, "two", ("x",), 0) is None

    async def free():
        return not (await journal.progress(TENANT, asked.turn_id, 1)).alive

    async with asyncio.timeout(5):
        while not await free():
            await asyncio.sleep(0.02)
    assert await journal.claim(asked, "two")
    assert await journal.write(asked, "one", ("x",), 0) is None


async def test_a_heartbeat_keeps_a_silent_writer(journal):
    asked = request()
    await journal.claim(asked, "one")
    for _ in range(8):
        await asyncio.sleep(0.1)  # longer altogether than the claim lives; each beat renews it
        await journal.beat([asked], "one")
    assert (await journal.progress(TENANT, asked.turn_id, 1)).alive


async def test_a_stream_that_lost_events_is_not_continued(journal, redis):
    asked = request()
    await journal.claim(asked, "w")
    assert await journal.write(asked, "w", ("a",), 0) == 1
    await redis.delete(stream_key(TENANT, asked.turn_id, 1))
    assert await journal.write(asked, "w", ("b",), 1) is None
    assert (await journal.progress(TENANT, asked.turn_id, 1)).events == []


async def test_every_reader_gets_every_event_once_wherever_it_begins(journal, follower):
    asked = request()
    await journal.append(TENANT, asked.turn_id, 1, [(ACCEPTED, {})])
    readers = [asyncio.create_task(read(follower, asked.turn_id, Position(1, n))) for n in (0, 1, 0)]
    await journal.claim(asked, "w")
    for i in range(30):
        await journal.write(asked, "w", (f"{i} ",), 0)
        if i == 15:
            readers.append(asyncio.create_task(read(follower, asked.turn_id, Position(1, 7))))
    await journal.seal(asked, "w", Outcome("completed"))
    await journal.append(TENANT, asked.turn_id, 1, [(COMPLETED, {})])
    for reader, first in zip(readers, (1, 2, 1, 8), strict=True):
        assert [event.n for event in await reader] == list(range(first, 33))
    assert follower.followed == 0


async def test_a_reader_goes_on_with_the_next_attempt(journal, follower):
    asked = request()
    reader = asyncio.create_task(read(follower, asked.turn_id))
    await journal.append(TENANT, asked.turn_id, 1, [(ACCEPTED, {})])
    await journal.claim(asked, "w")
    await journal.write(asked, "w", ("lost",), 0)
    await journal.supersede(TENANT, asked.turn_id, 1)
    assert await journal.write(asked, "w", ("never",), 0) is None
    assert (await journal.progress(TENANT, asked.turn_id, 1)).closed
    await journal.append(TENANT, asked.turn_id, 2, [(RESET, {"reason": "x"})])
    await journal.append(TENANT, asked.turn_id, 2, [(COMPLETED, {})])
    assert [(event.attempt, event.n, event.type) for event in await reader] == [
        (1, 1, ACCEPTED),
        (1, 2, DELTA),
        (2, 1, RESET),
        (2, 2, COMPLETED),
    ]


async def test_silence_is_told(follower):
    async with aclosing(follower.follow(TENANT, new_id("turn"), Position())) as batches:
        assert await anext(batches) == []


async def test_a_reader_that_does_not_read_is_dropped_and_holds_no_memory(journal, follower):
    asked = request()
    await journal.append(TENANT, asked.turn_id, 1, [(ACCEPTED, {})])
    async with aclosing(follower.follow(TENANT, asked.turn_id, Position())) as batches:
        assert (await anext(batches))[0].type == ACCEPTED
        await journal.claim(asked, "w")
        for _ in range(120):
            await journal.write(asked, "w", ("x",), 0)
        taken = 0
        with pytest.raises(Overloaded):  # noqa: PT012
            async for batch in batches:
                taken += len(batch)
        assert taken <= 50


async def test_without_redis_every_call_says_so():
    away = RedisJournal(open_redis("redis://127.0.0.1:1", timeout=0.2))
    with pytest.raises(JournalUnavailable):
        await away.append(TENANT, new_id("turn"), 1, [(ACCEPTED, {})])
    with pytest.raises(JournalUnavailable):
        await away.progress(TENANT, new_id("turn"), 1)
    gone = RedisFollower(open_redis("redis://127.0.0.1:1"), open_redis("redis://127.0.0.1:1"))
    with pytest.raises(JournalUnavailable):
        async for _ in gone.follow(TENANT, new_id("turn"), Position()):
            pass
