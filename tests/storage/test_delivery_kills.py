"""The process that delivers is killed again and again while it does: nothing is lost, and no order."""

import asyncio
import random
import sys

import pytest

from adapters.outgoing import Outgoing
from tests.doubles.receiver import ALLOWED, receiving
from tests.servers.given import open_pool
from tests.storage.delivery_world import DeliveryWorld

KILLS, CONVERSATIONS, EACH = 3, 5, 30


@pytest.fixture
async def world(url):
    pool = await open_pool(url, 4)
    async with receiving() as receiver, Outgoing(ALLOWED) as outgoing:
        world = DeliveryWorld(url, pool, outgoing, receiver)
        world.empty()
        yield world
    await pool.close()


async def relay(url):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.doubles.relay_process", url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"started\n"
    return process


async def test_killed_while_it_delivers_nothing_is_lost_and_order_is_kept(world):
    rng = random.Random(7)
    who = world.tenant()
    await world.webhook(who, ("turn.*",))
    world.receiver.pause = 0.002
    written = 0

    def write(number):
        nonlocal written
        for n in range(written, min(written + number, EACH)):
            for conversation in range(CONVERSATIONS):
                world.event(who, conversation_id=f"conv_{conversation}", n=n)
        written = min(written + number, EACH)

    def heard():
        found = {f"conv_{n}": [] for n in range(CONVERSATIONS)}
        for one in world.receiver.heard:
            found[one.body["partitionkey"]].append(one.body["data"]["n"])
        return found

    for _ in range(KILLS):
        write(EACH // KILLS)
        before = len(world.receiver.heard)
        process = await relay(world.url)
        await world.receiver.until(lambda before=before: len(world.receiver.heard) > before + rng.randrange(1, 30), 60)
        process.kill()
        await process.wait()
    process = await relay(world.url)
    await world.receiver.until(lambda: all(len(set(one)) == EACH for one in heard().values()), 120)
    process.kill()
    await process.wait()
    for conversation, numbers in heard().items():
        assert numbers == sorted(numbers), conversation
        assert set(numbers) == set(range(EACH)), conversation
    ids = {}
    for one in world.receiver.heard:
        ids.setdefault(one.id, set()).add((one.body["partitionkey"], one.body["data"]["n"]))
    assert all(len(told) == 1 for told in ids.values()), "one id is one event"
    assert len(ids) == EACH * CONVERSATIONS
