"""WebSockets: who may speak, what a frame does, what comes back."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import InvalidStatus

from serve_app.ingress.socket.sockets import Sockets
from tests.unit.ingress_world import KEY, Script, World
from tests.unit.socket_world import client, replica

Made = tuple[World, Sockets]


@pytest.fixture
async def made(database_url: str, redis_url: str, tenant: str) -> AsyncIterator[Made]:
    async with replica(database_url, redis_url, tenant) as found:
        yield found


@pytest.fixture
def brain(made: Made) -> World:
    return made[0]


async def test_a_message_is_sent_and_its_events_come_as_those_of_the_stream(brain):
    conversation = await brain.conversation()
    async with client(brain) as one:
        assert one.connection.subprotocol == "brain.v1"
        await one.tell("send", ref="a", conversation_id=conversation, content="hi", model="small")
        ack = await one.hear()
        assert (ack["op"], ack["ref"], ack["replayed"]) == ("ack", "a", False)
        assert ack["user_message"]["content"] == "hi" and ack["turn"]["conversation_id"] == conversation
        found = await one.turn()
    streamed = await brain.events(f"/api/v1/turns/{ack['turn']['id']}/events")
    assert [f"id: {frame['id']}" for frame in found] == [block.split("\n")[0] for block in streamed]
    assert [frame["event"] for frame in found] == [json.loads(block.partition("data: ")[2]) for block in streamed]
    assert {frame["conversation_id"] for frame in found} == {conversation}


async def test_the_first_frame_may_say_who_speaks(brain):
    async with client(brain, None) as one:
        assert one.connection.subprotocol is None
        await one.tell("auth", ref=1, token=KEY)
        welcome = await one.hear()
        assert (welcome["op"], welcome["ref"], welcome["tenant_id"]) == ("ack", 1, brain.tenant)
        await one.tell("ping")
        assert await one.hear() == {"op": "pong"}


@pytest.mark.parametrize("offered", [f"bearer.{'x' * 43}", "ticket.ten_x.nothing", "bearer."])
async def test_a_bad_credential_is_refused_before_the_upgrade(brain, offered):
    with pytest.raises(InvalidStatus) as refused:
        async with client(brain, subprotocols=["brain.v1", offered]):
            pass
    assert refused.value.response.status_code == 401
    assert b"invalid_api_key" in refused.value.response.body


async def test_whoever_says_something_else_first_or_a_bad_token_is_sent_away(brain):
    conversation = await brain.conversation()
    for op, fields in (("send", {"conversation_id": conversation, "content": "x"}), ("auth", {"token": "nobody"})):
        async with client(brain, None) as one:
            assert (await one.ask(op, **fields))["code"] == "invalid_api_key"
            assert (await one.closed())[0] == 4401
    assert brain.hosts.sent == []


async def test_a_ticket_opens_one_socket(brain):
    answer = await brain.http.post("/api/v1/ws/tickets")
    assert answer.status_code == 201
    ticket = answer.json()["ticket"]
    async with client(brain, None, f"?ticket={ticket}") as one:
        await one.tell("ping")
        assert (await one.hear())["op"] == "pong"
    for options in ({"path": f"?ticket={ticket}"}, {"subprotocols": ["brain.v1", f"ticket.{ticket}"]}):
        with pytest.raises(InvalidStatus) as refused:
            async with client(brain, None, **options):
                pass
        assert refused.value.response.status_code == 401
    ticket = (await brain.http.post("/api/v1/ws/tickets")).json()["ticket"]
    async with client(brain, None, subprotocols=["brain.v1", f"ticket.{ticket}"]) as one:
        assert one.connection.subprotocol == "brain.v1"


async def test_every_turn_of_a_watched_conversation_comes_whoever_began_it(brain):
    conversation = await brain.conversation()
    async with client(brain) as one, client(brain) as two:
        await one.ask("subscribe", conversation_id=conversation)
        await two.tell("send", conversation_id=conversation, content="from another socket")
        assert (await two.hear())["op"] == "ack"
        sent = await two.turn()
        assert await one.turn() == sent


async def test_a_cancel_stops_the_turn(brain):
    conversation = await brain.conversation()
    brain.hosts.script = Script(go=asyncio.Event())
    async with client(brain) as one:
        turn = (await one.ask("send", conversation_id=conversation, content="long"))["turn"]["id"]
        cancelled = await one.ask("cancel", turn_id=turn)
        assert cancelled["turn"]["id"] == turn
    assert brain.hosts.cancelled == [turn]
