"""Commands that are written as they come: each gets its own answer, and none waits for ever."""

import asyncio
import signal
import uuid

import pytest
from redis.exceptions import ResponseError

from domain.errors import JournalUnavailable
from storage.redis import open_redis
from storage.wire import Wire
from tests.storage.test_limits import server  # noqa: F401  (a fixture)


@pytest.fixture
async def wire(redis_url):
    wire = Wire(open_redis(redis_url))
    yield wire
    await wire.close()


async def test_each_command_gets_its_own_answer_and_an_error_is_one_commands_alone(wire):
    key = uuid.uuid4().hex
    asked = [wire.send("INCR", key) for _ in range(500)]
    wrong = wire.send("LPUSH", key, "x")
    more = [wire.send("INCR", key) for _ in range(500)]
    assert await asyncio.gather(*asked) == list(range(1, 501))
    assert await asyncio.gather(*more) == list(range(501, 1001))
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await wrong


async def test_an_answer_that_nobody_waits_for_is_nobody_elses(wire):
    key = uuid.uuid4().hex
    await wire.send("SET", key, 7)
    left = wire.send("GET", key)
    await asyncio.sleep(0)
    left.cancel()
    assert await wire.send("PING") == b"PONG"


async def test_what_is_under_way_is_answered_before_it_closes(redis_url):
    wire = Wire(open_redis(redis_url))
    asked = [wire.send("PING") for _ in range(3)]
    await wire.close()
    assert [one.result() for one in asked] == [b"PONG"] * 3


async def test_a_server_that_hangs_fails_all_that_wait_and_is_asked_anew(server):  # noqa: F811
    wire = Wire(open_redis(server.url), timeout=0.3)
    assert await wire.send("PING") == b"PONG"
    server.process.send_signal(signal.SIGSTOP)
    asked = [wire.send("PING") for _ in range(3)]
    failed = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(one, JournalUnavailable) for one in failed)
    server.process.send_signal(signal.SIGCONT)
    async with asyncio.timeout(20):
        while True:
            try:
                assert await wire.send("PING") == b"PONG"
                break
            except JournalUnavailable:
                continue
    server.stop()
    with pytest.raises(JournalUnavailable):
        await wire.send("PING")
    await wire.close()
