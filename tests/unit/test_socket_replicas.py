"""WebSockets over several replicas: what is told crosses, what was missed is made up for."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from docs.examples.brain_ws import BrainSocket
from tests.unit.ingress_world import KEY, Script, World
from tests.unit.socket_world import address, client, replica, replicas

ENDS = ("turn.completed", "turn.failed", "turn.cancelled")


@pytest.fixture
async def brains(database_url: str, redis_url: str, tenant: str) -> AsyncIterator[list[World]]:
    async with replicas(database_url, redis_url, tenant) as found:
        yield found


async def test_typing_and_receipts_reach_those_who_watch_on_every_replica_but_not_the_speaker(brains):
    here, there = brains
    conversation, other = await here.conversation(), await here.conversation()
    message = (await here.send(conversation)).json()["message"]["id"]
    async with client(here) as speaker, client(here) as near, client(there) as far, client(there) as elsewhere:
        for one in (speaker, near, far):
            assert (await one.ask("subscribe", conversation_id=conversation))["op"] == "ack"
        await elsewhere.ask("subscribe", conversation_id=other)
        await speaker.tell("typing", conversation_id=conversation)
        await speaker.tell("read", conversation_id=conversation, message_id=message)
        for one in (near, far):
            told = await one.all_of("typing", "read")  # in whichever order they come
            assert told["typing"] == {
                "op": "typing",
                "conversation_id": conversation,
                "user_id": None,
                "typing": True,
                "for_ms": 8000,
            }
            assert told["read"]["message_id"] == message
        for one in (speaker, elsewhere):
            await one.tell("ping")
            assert (await one.hear())["op"] == "pong", "nothing was told to it before"
        await speaker.connection.close()
        assert (await far.until("typing"))["typing"] is False, "who has gone types no more"


async def test_who_is_there_is_seen_on_every_replica(brains):
    here, there = brains
    conversation = await here.conversation()
    async with client(here) as one:
        ack = await one.ask("subscribe", conversation_id=conversation)
        assert ack["present"] == [{"user_id": None}]
        async with client(there) as two:
            await two.ask("subscribe", conversation_id=conversation)
            assert (await two.ask("presence", conversation_id=conversation))["users"] == [{"user_id": None}]
    async with client(there) as two:
        answer = await two.ask("presence", conversation_id=conversation)
        while answer["users"]:
            answer = await two.ask("presence", conversation_id=conversation)


async def test_a_turn_begun_on_one_replica_is_followed_on_the_other(brains):
    here, there = brains
    conversation = await here.conversation()
    async with client(there) as far, client(here) as near:
        await far.ask("subscribe", conversation_id=conversation)
        await near.tell("send", conversation_id=conversation, content="hi")
        assert (await near.hear())["op"] == "ack"
        assert await near.turn() == await far.turn()


async def test_the_example_client_resumes_on_another_replica_without_a_gap_or_a_repeat(brains):
    here, there = brains
    conversation = await here.conversation()
    here.hosts.script = Script(deltas=[str(n) for n in range(20)], go=asyncio.Event())
    async with BrainSocket(address(here), KEY) as one:
        await one.subscribe(conversation)
        turn = (await one.send(conversation, "long"))["id"]
        found, frames = [], one.frames()
        async for frame in frames:
            if frame["op"] != "event":
                continue
            found.append(frame)
            if len(found) == 2:
                one._url = address(there)
                await one._connection.close()
                here.hosts.script.go.set()
            if frame["event"]["type"] in ENDS:
                break
        assert one.connections == 2
        assert [frame["event"]["n"] for frame in found] == list(range(1, len(found) + 1))
        assert {frame["event"]["turn_id"] for frame in found} == {turn}
        assert "".join(frame["event"].get("text", "") for frame in found) == "".join(map(str, range(20)))
        here.hosts.script = Script()
        sent = (await here.send(conversation, "by HTTP")).json()
        later = []
        async for frame in frames:
            if frame["op"] == "event":
                later.append(frame)
                if frame["event"]["type"] in ENDS:
                    break
        assert later[0]["event"]["turn_id"] == sent["turn"]["id"] and later[-1]["event"]["message"] == sent["message"]


async def test_what_was_accepted_while_away_is_made_up_for(brains):
    here, there = brains
    conversation = await here.conversation()
    async with client(here) as one:
        assert (await one.ask("subscribe", conversation_id=conversation))["resume"] == "start"
    first = (await here.send(conversation, "one")).json()["turn"]["id"]
    second = (await here.send(conversation, "two")).json()["turn"]["id"]
    async with client(there) as one:
        ack = await one.ask("subscribe", conversation_id=conversation, after="start")
        assert ack["turns"] == [first, second] and ack["resume"] == second
    async with client(there) as one:
        ack = await one.ask("subscribe", conversation_id=conversation, after=[first])
        assert ack["turns"] == [second]
        assert [frame["event"]["turn_id"] for frame in await one.turn()] == [second] * 5
    async with client(there) as one:
        ack = await one.ask("subscribe", conversation_id=conversation, after=[f"{second}/1/3"])
        assert [frame["event"]["n"] for frame in await one.turn()] == [4, 5]


@pytest.mark.parametrize("before", [False, True])
async def test_a_turn_that_began_and_ended_while_nobody_heard_of_it_is_made_up_for(
    database_url, redis_url, tenant, before
):
    async with replica(database_url, redis_url, tenant) as (world, opened):
        conversation = await world.conversation()
        if before:
            await world.send(conversation, "known")
        async with client(world) as one:
            await one.ask("subscribe", conversation_id=conversation)
            hear, opened.broadcast.hear = opened.broadcast.hear, lambda told: None
            missed = (await world.send(conversation, "missed")).json()["turn"]["id"]
            opened.broadcast.hear = hear
            for _ in range(2):
                opened.broadcast.missed()
            assert {frame["event"]["turn_id"] for frame in await one.turn()} == {missed}
            opened.broadcast.missed()
            assert (await one.ask("ping"))["op"] == "pong"
            await one.tell("send", conversation_id=conversation, content="next", ref="sent")
            ack = await one.until("ack")
            assert {frame["event"]["turn_id"] for frame in await one.turn()} == {ack["turn"]["id"]}, "each of them once"


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
async def test_the_example_in_javascript_sends_and_hears(brains):
    conversation = await brains[0].conversation()
    script = Path(__file__).with_name("brain_ws.mjs")
    process = await asyncio.create_subprocess_exec(
        *("node", "--experimental-websocket", "--experimental-default-type=module"),
        *(str(script), address(brains[0]), KEY, conversation),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        told, _ = await process.communicate()
    found = [json.loads(line) for line in told.splitlines()]
    turn = next(one["turn_id"] for one in found if one["type"] == "sent")
    events = [one for one in found if one["type"] != "sent"]
    assert [one["n"] for one in events] == [1, 2, 3, 4, 5] and {one["turn_id"] for one in events} == {turn}
    assert events[-1]["message"]["content"] == "Hello"
