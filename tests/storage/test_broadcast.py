"""What replicas tell each other at once, who is there, and tickets: all of it in Redis, none of it kept."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from domain.ids import new_id
from storage import presence as presences
from storage import tickets as ticketing
from storage.broadcast import RedisBroadcast, Told, channel
from storage.journal import RedisJournal
from storage.presence import RedisPresence
from storage.redis import Pipeline, open_redis
from storage.tickets import RedisTickets

DEADLINE = 10.0


@asynccontextmanager
async def listener(redis_url: str) -> AsyncIterator[tuple[RedisBroadcast, list[Told], asyncio.Event]]:
    made = RedisBroadcast(open_redis(redis_url), open_redis(redis_url, timeout=10))
    told: list[Told] = []
    missed = asyncio.Event()
    made.hear, made.missed = told.append, missed.set
    yield made, told, missed
    await made.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    made = open_redis(redis_url)
    yield made
    await made.aclose()


async def test_who_joined_a_conversation_hears_what_is_told_of_it_and_no_more_after_leaving(redis_url):
    tenant, conversation = new_id("ten"), new_id("conv")
    async with listener(redis_url) as (one, told, _), listener(redis_url) as (two, others, _):
        await one.join(tenant, conversation)
        words = Told(tenant, conversation, "frame", "a.1", '{"text":"two\\nlines"}')
        two.tell(words)
        await until(lambda: told)
        assert told == [words] and others == []
        await one.leave(tenant, conversation)
        await one.join(tenant, other := another(tenant, conversation))
        two.tell(words)
        two.tell(last := Told(tenant, other, "turn", "", new_id("turn")))
        await until(lambda: len(told) > 1)
        assert told[1:] == [last]


def another(tenant: str, conversation: str) -> str:
    """A conversation of another channel."""
    while True:
        made = new_id("conv")
        if channel(tenant, made) != channel(tenant, conversation):
            return made


async def test_a_lost_connection_is_made_again_and_what_was_missed_is_asked_for(redis_url, redis):
    tenant, conversation = new_id("ten"), new_id("conv")
    async with listener(redis_url) as (one, told, missed):
        await one.join(tenant, conversation)
        await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        async with asyncio.timeout(DEADLINE):
            await missed.wait()
        one.tell(words := Told(tenant, conversation, "turn", "", new_id("turn")))
        await until(lambda: told)
        assert told == [words]


async def test_a_turn_that_begins_is_told_to_those_who_watch_its_conversation(redis_url):
    tenant, conversation, turn = new_id("ten"), new_id("conv"), new_id("turn")
    journal = RedisJournal(open_redis(redis_url))
    async with listener(redis_url) as (one, told, _):
        await one.join(tenant, conversation)
        accepted = {"user_message": {"conversation_id": conversation}}
        await journal.append(tenant, turn, 1, [("turn.accepted", accepted)])
        await journal.append(tenant, turn, 1, [("turn.model", {"model": "m"})], 1)
        await until(lambda: told)
        assert told == [Told(tenant, conversation, "turn", "", turn)]
    await journal.close()


async def test_a_user_is_there_as_long_as_one_replica_says_so(redis_url):
    now = 1000.0
    tenant, conversation = new_id("ten"), new_id("conv")
    one, two = (RedisPresence(Pipeline(open_redis(redis_url)), name, lambda: now) for name in "ab")
    assert await one.come(tenant, conversation, "usr_1") is True
    assert await two.come(tenant, conversation, "usr_1") is False, "it is there already"
    assert await two.come(tenant, conversation, "") is True
    assert await one.users(tenant, conversation) == ["", "usr_1"]
    assert await one.go(tenant, conversation, "usr_1") is False, "the other replica still has a socket"
    assert await two.go(tenant, conversation, "usr_1") is True
    assert await two.users(tenant, conversation) == [""]
    now += presences.LASTS + 1
    assert await one.users(tenant, conversation) == []
    assert sorted([await one.lapsed(tenant, conversation), await two.lapsed(tenant, conversation)]) == [[], [""]]


async def test_a_ticket_counts_once_and_not_for_long_and_redis_knows_no_credential(redis_url, redis):
    tenant = new_id("ten")
    tickets = RedisTickets(Pipeline(open_redis(redis_url)))
    ticket = await tickets.give(tenant, "brain_secret")
    (key,) = [key async for key in redis.scan_iter(match=f"brain:{tenant}:ticket:*")]
    assert 0 < await redis.ttl(key) <= ticketing.LASTS
    held = await redis.get(key)
    assert b"brain_secret" not in held and ticket.partition(".")[2].encode() not in key
    assert await tickets.take(ticket[:-1] + ("A" if ticket[-1] != "A" else "B")) is None
    assert await tickets.take("no ticket") is None
    assert await tickets.take(ticket) == "brain_secret"
    assert await tickets.take(ticket) is None
