"""What a generation journals of tool calls: in order with its texts, under its claim, and as followers read it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from deployments.recording import TOOL_CALLS, Recording
from domain.events import DELTA, Position
from domain.generation import GenerationRequest, Outcome
from domain.ids import new_id
from storage.follower import RedisFollower
from storage.journal import RedisJournal
from storage.redis import open_redis


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    made = open_redis(redis_url)
    yield made
    await made.aclose()


@pytest.fixture
async def journal(redis: Redis) -> AsyncIterator[RedisJournal]:
    made = RedisJournal(redis)
    yield made
    await made.close()


@pytest.fixture
def asked() -> GenerationRequest:
    return GenerationRequest("ten_1", new_id("turn"), 1, "m", [], kept=False)


def call(index: int, arguments: str, **head: Any) -> dict[str, Any]:
    return {"index": index, **head, "function": {"arguments": arguments}}


async def recorded(recording: Recording) -> None:
    recording.end()
    async with asyncio.timeout(10):
        await recording.run()


async def events_of(journal: RedisJournal, asked: GenerationRequest) -> list[tuple[int, str, Any]]:
    events = (await journal.progress(asked.tenant, asked.turn_id, 1)).events
    return [(event.n, event.type, event.data.get("text") or event.data.get("tool_calls")) for event in events]


async def test_calls_and_texts_keep_their_order_and_deltas_of_one_call_are_joined(
    journal: RedisJournal, asked: GenerationRequest
) -> None:
    recording = Recording(journal, asked, "w1")
    assert await recording.claim()
    recording.add("Hel")
    recording.add("lo")
    recording.add_tool_calls((call(0, '{"a"', id="call_1", type="function"),))
    recording.add_tool_calls((call(0, ": 1}"), call(1, "{}", id="call_2", type="function")))
    recording.add("!")
    recording.add_tool_calls(())
    await recorded(recording)
    calls = [call(0, '{"a": 1}', id="call_1", type="function"), call(1, "{}", id="call_2", type="function")]
    assert await events_of(journal, asked) == [(1, DELTA, "Hello"), (2, TOOL_CALLS, calls), (3, DELTA, "!")]
    assert recording.deltas == [(1, 5), (3, 1)]


async def test_followers_get_them_as_they_come(
    journal: RedisJournal, redis: Redis, redis_url: str, asked: GenerationRequest
) -> None:
    blocking = open_redis(redis_url)
    follower = RedisFollower(redis, blocking)
    recording = Recording(journal, asked, "w1")
    await recording.claim()
    recording.add_tool_calls((call(0, "{}", id="call_1"),))
    await recorded(recording)
    await recording.seal(Outcome("completed"))
    seen = [event async for batch in follower.follow("ten_1", asked.turn_id, Position(), kept=False) for event in batch]
    assert [(event.n, event.type, event.data["tool_calls"][0]["id"]) for event in seen] == [(1, TOOL_CALLS, "call_1")]
    await follower.close()
    await blocking.aclose()


async def test_a_writer_without_the_claim_writes_nothing(journal: RedisJournal, asked: GenerationRequest) -> None:
    first, second = Recording(journal, asked, "w1"), Recording(journal, asked, "w2")
    assert await first.claim()
    assert not await second.claim()
    second.add_tool_calls((call(0, "{}", id="call_1"),))
    await recorded(second)
    assert second.lost
    assert await events_of(journal, asked) == []
    second.add_tool_calls((call(0, "{}", id="call_1"),))
    assert second._pending == []


async def test_a_sealed_stream_takes_none(journal: RedisJournal, asked: GenerationRequest) -> None:
    recording = Recording(journal, asked, "w1")
    await recording.claim()
    recording.add("x")
    await recorded(recording)
    await recording.seal(Outcome("completed"))
    late = Recording(journal, asked, "w1")
    await late.claim()
    late.add_tool_calls((call(0, "{}", id="call_1"),))
    await recorded(late)
    assert late.lost
    assert await events_of(journal, asked) == [(1, DELTA, "x")]
