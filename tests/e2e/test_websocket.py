"""WebSockets of the running service, over both of its ingress replicas."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from docs.examples.brain_ws import BrainSocket
from tests.conftest import wait_until
from tests.e2e.brain import Brain, check_ids, text_of

pytestmark = pytest.mark.cluster
ENDS = ("turn.completed", "turn.failed", "turn.cancelled")


def address(brain: Brain) -> str:
    return brain.url.replace("http", "ws", 1) + "/api/v1/ws"


def held(brain: Brain) -> dict[psutil.Process, int]:
    """How many connections each ingress replica has from HAProxy."""
    found = {}
    for one in brain.replicas("Ingress"):
        connections = one.net_connections("tcp")
        listening = {c.laddr.port for c in connections if c.status == "LISTEN"}
        accepted = [c for c in connections if c.status == "ESTABLISHED" and c.laddr.port in listening]
        found[one] = len(accepted)
    return found


async def ask(socket: ClientConnection, op: str, **fields: Any) -> Any:
    await socket.send(json.dumps({"op": op, "ref": 1, **fields}))
    async with asyncio.timeout(10):
        while (frame := json.loads(await socket.recv())).get("ref") != 1:
            continue
    return frame


async def events(brain_socket: BrainSocket, turn: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(60):
        async for frame in brain_socket.frames():
            if frame["op"] == "event" and frame["event"]["turn_id"] == turn:
                found.append({"id": frame["id"], **frame["event"]})
                if frame["event"]["type"] in ENDS:
                    return found
    raise AssertionError("the frames ended")


async def test_a_turn_goes_on_where_it_was_when_its_ingress_is_killed(brain: Brain) -> None:
    conversation, before = brain.conversation(), held(brain)
    async with BrainSocket(address(brain), brain.key) as one:
        await one.subscribe(conversation)
        turn = (await one.send(conversation, "survive", model="mock,n=60,itl=50"))["id"]
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(90):
            async for frame in one.frames():
                if frame["op"] != "event":
                    continue
                found.append({"id": frame["id"], **frame["event"]})
                if len(found) == 12:
                    now = held(brain)
                    max(now, key=lambda replica: now[replica] - before.get(replica, 0)).kill()
                if frame["event"]["type"] in ENDS:
                    break
        assert one.connections >= 2
    check_ids(found)
    assert found[-1]["type"] == "turn.completed" and found[0]["type"] == "turn.accepted"
    assert text_of(found) == found[-1]["message"]["content"] == brain.check(conversation)[1]["content"]
    assert {event["turn_id"] for event in found} == {turn}
    wait_until(lambda: brain.serving("Ingress", 2), 60, what="two ingress replicas")


@asynccontextmanager
async def sockets(brain: Brain, number: int) -> AsyncIterator[list[ClientConnection]]:
    protocols: Any = ["brain.v1", f"bearer.{brain.key}"]
    made = [await connect(address(brain), subprotocols=protocols, compression=None) for _ in range(number)]
    yield made
    await asyncio.gather(*(one.close() for one in made))


async def test_what_one_client_says_reaches_the_others_on_every_replica(brain: Brain) -> None:
    conversation = brain.conversation()
    async with sockets(brain, 12) as (speaker, *others):
        for one in (speaker, *others):
            assert (await ask(one, "subscribe", conversation_id=conversation))["op"] == "ack"
        assert len([number for number in held(brain).values() if number]) == 2, "both replicas have some"
        await speaker.send(json.dumps({"op": "typing", "conversation_id": conversation, "typing": True}))
        sent = brain.send(conversation, "asked by HTTP", model="small").json()
        for one in others:
            typing, events = [], []  # in whichever order these two come
            async with asyncio.timeout(20):
                while not typing or not events or events[-1]["event"]["type"] not in ENDS:
                    frame = json.loads(await one.recv())
                    if frame["op"] in ("typing", "event"):
                        (typing if frame["op"] == "typing" else events).append(frame)
            assert typing[0]["typing"] is True
            assert events[-1]["event"]["message"] == sent["message"]
            check_ids([{"id": frame["id"], **frame["event"]} for frame in events])


async def test_a_revoked_key_closes_its_sockets(brain: Brain) -> None:
    made = brain.http.post("/api/v1/keys", json={"name": "short", "role": "member"}).json()
    protocols: Any = ["brain.v1", f"bearer.{made['key']}"]
    async with connect(address(brain), subprotocols=protocols) as one:
        assert (await ask(one, "ping"))["op"] == "pong"
        assert brain.http.delete(f"/api/v1/keys/{made['id']}").is_success
        async with asyncio.timeout(5):
            await one.wait_closed()
        assert one.close_code == 4401


async def test_nobody_and_pages_of_elsewhere_are_refused_before_the_upgrade(brain: Brain) -> None:
    for options, status in (
        ({"subprotocols": ["brain.v1", "bearer.nobody"]}, 401),
        ({"origin": "https://evil.example", "subprotocols": ["brain.v1", f"bearer.{brain.key}"]}, 403),
    ):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(address(brain), **options):  # type: ignore[arg-type]
                pass
        assert refused.value.response.status_code == status
