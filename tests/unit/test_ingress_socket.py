"""WebSockets: who may speak, what a frame does, what comes back."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from domain.ids import new_id
from serve_app.ingress import metrics
from serve_app.ingress.socket import endpoint
from serve_app.ingress.socket.sockets import SocketLimits, Sockets
from tests.unit.ingress_world import KEY, Script, World
from tests.unit.socket_world import Client, client, replica

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


BAD = {
    "no JSON": ("{", "invalid_json"),
    "no object": ("[]", "invalid_frame"),
    "no op": ("{}", "unknown_op"),
    "an unknown op": ('{"op": "fly"}', "unknown_op"),
    "a field too much": ('{"op": "ping", "ref": 7, "x": 1}', "invalid_request"),
    "a wrong field": ('{"op": "send", "ref": 7, "conversation_id": "conv_1", "content": 5}', "invalid_request"),
    "no conversation": ('{"op": "send", "ref": 7, "conversation_id": "conv_1", "content": "hi"}', "not_found"),
    "NUL": ('{"op": "send", "ref": 7, "conversation_id": "conv_1", "content": "\\u0000"}', "invalid_request"),
    "two ids": ('{"op": "subscribe", "ref": 7, "conversation_id": "a", "turn_id": "b"}', "invalid_request"),
    "no id of an event": ('{"op": "subscribe", "turn_id": "turn_%s", "after": "x"}' % ("0" * 32), "invalid_event_id"),
    "an unknown turn": ('{"op": "cancel", "turn_id": "turn_%s"}' % ("0" * 32), "not_found"),
    "an unknown message": ('{"op": "read", "conversation_id": "x", "message_id": "y"}', "not_found"),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_frame_that_cannot_be_obeyed_is_answered_and_the_socket_stays_open(brain, what):
    text, code = BAD[what]
    async with client(brain) as one:
        await one.connection.send(text)
        answer = await one.hear()
        assert (answer["op"], answer["code"]) == ("error", code) and answer["message"] and answer["status"] >= 400
        assert answer["ref"] == (7 if '"ref": 7' in text else None)
        assert (await one.ask("ping"))["op"] == "pong"


async def test_what_is_no_text_or_too_large_ends_the_socket(brain):
    async with client(brain) as one:
        await one.connection.send(b"bytes")
        assert (await one.closed())[0] == 1003
    async with client(brain) as one:
        await one.connection.send("x" * 300_000)
        assert (await one.closed())[0] == 1009


async def test_a_client_that_floods_is_refused_and_then_sent_away(brain):
    async with client(brain) as one:
        for _ in range(400):
            await one.tell("ping")
        assert (await one.until("error"))["code"] == "overloaded"
        code, reason = await drained(one)
        assert code == 4429 and "frames a second" in reason


@pytest.fixture
def now(monkeypatch):
    """The time that sockets tell, in a list of one: it stands still where a test does not move it."""
    told = [time.monotonic() + 60]
    monkeypatch.setattr(endpoint, "time", SimpleNamespace(monotonic=lambda: told[0]))
    return told


async def refused(one: Client, count: int) -> list[int]:
    """Which of the frames with these numbers are refused for coming too fast, once all of them are answered."""
    waited, found = set(range(count)), []
    while waited:
        frame = await one.hear()
        waited.discard(frame.get("ref"))
        if frame.get("code") == "overloaded":
            found.append(frame["ref"])
    return sorted(found)


async def test_an_application_that_opens_may_ask_of_all_that_it_shows(brain, now):
    conversations = [await brain.conversation() for _ in range(100)]
    for _ in range(2):  # and again when it connects anew
        async with client(brain) as one:
            for n, conversation in enumerate(conversations):
                await one.tell("subscribe", conversation_id=conversation)
                await one.tell("presence", ref=n, conversation_id=conversation)
            assert await refused(one, 100) == []
            assert (await one.ask("ping"))["op"] == "pong"


@pytest.mark.parametrize("op", ["read", "presence"])
async def test_frames_for_which_a_store_is_asked_may_come_less_often(brain, op, now):
    conversation = await brain.conversation()
    fields = {"conversation_id": conversation, **({"message_id": new_id("msg")} if op == "read" else {})}

    async def at_once(count: int) -> list[int]:
        for n in range(count):
            await one.tell(op, ref=n, **fields)
        return await refused(one, count)

    async with client(brain) as one:
        assert await at_once(200) == list(range(120, 200)), "more than are forgiven, but no more frames than may come"
        now[0] += 2
        assert await at_once(100) == list(range(20, 100)), "ten a second"
        assert (await one.ask("ping"))["op"] == "pong", "the socket stays open"
        for n in range(100):
            await one.tell(op, ref=n, **fields)
        assert (await drained(one))[0] == 4429


@pytest.mark.parametrize(("origin", "status"), [("https://evil.example", 403), ("null", 403)])
async def test_a_page_of_another_origin_opens_nothing(brain, origin, status):
    with pytest.raises(InvalidStatus) as refused:
        async with client(brain, origin=origin):
            pass
    assert refused.value.response.status_code == status


async def test_a_page_of_the_same_origin_does(brain):
    async with client(brain, origin=brain.url) as one:
        assert (await one.ask("ping"))["op"] == "pong"


async def test_a_message_that_is_sent_again_is_one_turn(brain):
    conversation = await brain.conversation()
    fields = {"conversation_id": conversation, "content": "once", "idempotency_key": "k-1"}
    async with client(brain) as one:
        first = await one.ask("send", **fields)
        told = await one.turn()
    async with client(brain) as one:
        again = await one.ask("send", **fields)
        assert again["replayed"] and again["turn"]["id"] == first["turn"]["id"]
        assert await one.turn() == told
        other = await one.ask("send", **{**fields, "content": "another"})
        assert (other["code"], other["status"]) == ("idempotency_mismatch", 422)
    by_http = await brain.send(conversation, "once", headers={"idempotency-key": "k-1"})
    assert by_http.headers["idempotent-replayed"] == "true"


async def test_who_stops_watching_hears_no_more(brain):
    conversation = await brain.conversation()
    async with client(brain) as one, client(brain) as two:
        await one.ask("subscribe", conversation_id=conversation)
        await one.ask("unsubscribe", conversation_id=conversation)
        await two.ask("send", conversation_id=conversation, content="hi")
        await two.turn()
        await one.tell("ping")
        assert (await one.hear())["op"] == "pong"


async def test_a_client_that_takes_nothing_is_sent_away(made):
    brain, sockets = made
    async with client(brain) as one:
        await one.ask("ping")
        (socket,) = sockets.open
        before = metric(brain, "brain_socket_overflows_total")
        one.connection.transport.pause_reading()
        for _ in range(6000):
            socket.push('{"op":"typing","filler":"' + "x" * 1000 + '"}')
            await asyncio.sleep(0)
            if socket.closing:
                break
        assert socket.closing == 4408
        assert metric(brain, "brain_socket_overflows_total") == before + 1
        one.connection.transport.resume_reading()
        code, reason = await drained(one)
        assert code == 4408 and "slowly" in reason


async def test_a_replica_that_stops_tells_its_clients_to_come_back(database_url, redis_url, tenant):
    async with client_of_a_replica(database_url, redis_url, tenant) as (one, stopping):
        stopping.set()
        hint = await one.until("reconnect")
        assert 0 <= hint["after_ms"] < 30_000
        assert (await one.closed())[0] == 1012


async def test_when_as_many_are_open_as_may_be_the_next_is_refused(database_url, redis_url, tenant):
    limits = SocketLimits(sockets=2, tenant=1, unnamed=1)
    async with replica(database_url, redis_url, tenant, limits) as (brain, _), client(brain) as first:
        assert (await first.ask("ping"))["op"] == "pong"
        for _ in range(3):
            async with client(brain) as second:
                assert (await second.closed())[0] == 1013
        async with client(brain, None):
            with pytest.raises(InvalidStatus) as refused:
                async with client(brain):
                    pass
            assert refused.value.response.status_code == 429
            assert refused.value.response.headers["retry-after"]


async def test_what_is_open_and_said_is_counted(made):
    brain, sockets = made
    opened, said = metric(brain, "brain_sockets_open"), metric(brain, 'brain_socket_frames_total{direction="in"}')
    async with client(brain) as one:
        await one.ask("ping")
        assert metric(brain, "brain_sockets_open") == opened + 1 and len(sockets.open) == 1
        assert metric(brain, 'brain_socket_frames_total{direction="in"}') == said + 1
    async with asyncio.timeout(10):
        while sockets.open:
            await asyncio.sleep(0.01)
    assert metric(brain, "brain_sockets_open") == opened


async def drained(one: Client) -> tuple[int, str]:
    """How the socket was closed, once all that was written before has been read."""
    with suppress(ConnectionClosed):
        while True:
            await one.hear()
    return await one.closed()


def metric(brain: World, name: str) -> float:
    for line in metrics.render().splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    return 0.0


@asynccontextmanager
async def client_of_a_replica(
    database_url: str, redis_url: str, tenant: str
) -> AsyncIterator[tuple[Client, asyncio.Event]]:
    """A client, and what ends the replica under it."""
    stopping, opened = asyncio.Event(), asyncio.Event()
    found: list[World] = []

    async def serve() -> None:
        async with replica(database_url, redis_url, tenant) as (brain, _):
            found.append(brain)
            opened.set()
            await stopping.wait()

    serving = asyncio.create_task(serve())
    await opened.wait()
    async with client(found[0]) as one:
        await one.ask("ping")
        yield one, stopping
        await serving
