"""Who may do what over a WebSocket, and for how long."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from domain.ids import new_id
from serve_app.ingress.socket.connection import Connection
from serve_app.ingress.socket.endpoint import AT_ONCE
from serve_app.ingress.socket.operations import Operations
from tests.conftest import make_database
from tests.unit.ingress_world import KEY
from tests.unit.socket_world import client
from tests.unit.whole_world import Whole, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def url(postgres_folder: Path) -> str:
    return make_database(postgres_folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def brain(url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Whole]:
    async with whole(url, tmp_path_factory.mktemp("whole"), redis_url) as made:
        yield made


async def test_what_ends_a_credential_closes_its_sockets(brain: Whole) -> None:
    own = brain.own.id

    async def key_revoked() -> tuple[str, Any]:
        name = new_id("key")
        return brain.key(own, "member", id=name), brain.call("DELETE", f"keys/{name}", own)

    async def user_disabled() -> tuple[str, Any]:
        user = brain.user(own)
        key = brain.key(own, "member", user=user)
        return key, brain.call("DELETE", f"users/{user}", own)

    async def signed_out() -> tuple[str, Any]:
        user = brain.user(own)
        session, _ = await brain.session(own, user)
        token = await brain.token(own, "member", sub=user, sid=session)
        return token, brain.call("DELETE", f"users/{user}/sessions/{session}", own)

    async def role_changed() -> tuple[str, Any]:
        user = brain.user(own)
        key = brain.key(own, "member", user=user)
        return key, brain.call("PATCH", f"users/{user}", own, {"role": "read-only"})

    for make in (key_revoked, user_disabled, signed_out):
        credential, change = await make()
        async with client(brain.world, credential) as one:
            assert (await one.ask("ping"))["op"] == "pong"
            await change
            code, reason = await one.closed()
            assert code == 4401 and "not valid" in reason, make.__name__
    credential, change = await role_changed()
    async with client(brain.world, credential) as one:
        assert (await one.ask("ping"))["op"] == "pong"
        await change
        answer = await one.ask("send", conversation_id=brain.own.things["conversation_id"], content="hi")
        assert answer["op"] == "error"


async def test_a_suspended_tenants_sockets_are_closed(brain: Whole) -> None:
    tenant = brain.tenant().id
    async with client(brain.world, brain.key(tenant, "owner")) as one:
        assert (await one.ask("ping"))["op"] == "pong"
        operator = {"authorization": f"Bearer {KEY}"}
        path, body = f"/api/v1/admin/tenants/{tenant}", {"status": "suspended"}
        answer = await brain.world.http.patch(path, json=body, headers=operator)
        assert answer.is_success, answer.text
        assert (await one.closed())[0] == 4401


async def test_a_token_that_expires_closes_its_socket_and_a_fresh_one_keeps_it_open(brain: Whole) -> None:
    own = brain.own.id
    user = brain.user(own)
    session, _ = await brain.session(own, user)
    short = await brain.token(own, "member", sub=user, sid=session, exp=int(time.time()) + 3)
    fresh = await brain.token(own, "member", sub=user, sid=session)
    async with client(brain.world, short) as left, client(brain.world, short) as kept:
        assert (await kept.ask("auth", token=fresh))["user_id"] == user
        other = await kept.ask("auth", token=await brain.token(own, "member"))
        assert (other["op"], other["status"]) == ("error", 403)
        code, reason = await left.closed()
        assert code == 4401 and "expired" in reason
        assert (await kept.ask("ping"))["op"] == "pong"


async def test_another_users_and_another_tenants_things_are_unknown(brain: Whole) -> None:
    own, things = brain.own.id, brain.own.things
    stranger = await brain.token(own, "member")
    other = brain.key(brain.other.id, "owner")
    for credential in (stranger, other):
        async with client(brain.world, credential) as one:
            for op, fields in (
                ("send", {"conversation_id": things["conversation_id"], "content": "hi"}),
                ("subscribe", {"conversation_id": things["conversation_id"]}),
                ("subscribe", {"turn_id": things["turn_id"]}),
                ("cancel", {"turn_id": things["turn_id"]}),
                ("typing", {"conversation_id": things["conversation_id"]}),
                ("read", {"conversation_id": things["conversation_id"], "message_id": things["message_id"]}),
                ("presence", {"conversation_id": things["conversation_id"]}),
            ):
                answer = await one.ask(op, **fields)
                assert (answer["op"], answer["status"], answer["code"]) == ("error", 404, "not_found"), op


async def test_each_frame_needs_the_permission_of_its_route(brain: Whole) -> None:
    things = brain.own.things
    conversation, turn = things["conversation_id"], things["turn_id"]
    frames = {
        "send": {"conversation_id": conversation, "content": "hi"},
        "cancel": {"turn_id": turn},
        "typing": {"conversation_id": conversation},
        "subscribe": {"conversation_id": conversation},
        "presence": {"conversation_id": conversation},
        "read": {"conversation_id": conversation, "message_id": things["message_id"]},
    }
    for scopes, refused in (
        (["conversations:read", "conversations:any"], {"send", "cancel", "typing"}),
        (["messages:send", "conversations:any"], {"subscribe", "presence", "read"}),
        ([], set(frames)),
    ):
        async with client(brain.world, brain.key(brain.own.id, "owner", scopes)) as one:
            for op in refused:
                answer = await one.ask(op, **frames[op])
                assert (answer["op"], answer["status"]) == ("error", 403), (scopes, op)
    async with client(
        brain.world, brain.key(brain.own.id, "owner", ["conversations:read", "conversations:any"])
    ) as one:
        for op in ("subscribe", "presence", "read"):
            assert (await one.ask(op, **frames[op]))["op"] != "error", op


async def test_a_turn_over_a_socket_counts_against_the_limits(brain: Whole) -> None:
    tenant = brain.tenant().id
    body = {"settings": {"limits": {"requests_per_minute": 3}}}
    headers = {"authorization": f"Bearer {KEY}"}
    answer = await brain.world.http.patch(f"/api/v1/admin/tenants/{tenant}", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    key = brain.key(tenant, "owner")
    made = await brain.world.http.post("/api/v1/conversations", json={}, headers={"authorization": f"Bearer {key}"})
    async with client(brain.world, key) as one:
        answers = [await one.ask("send", conversation_id=made.json()["id"], content="hi") for _ in range(4)]
    refused = [one for one in answers if one["op"] == "error"]
    assert refused and {one["code"] for one in refused} == {"rate_limited"} and refused[0]["retry_after"] >= 1
    assert [one["op"] for one in answers[:2]] == ["ack", "ack"]


async def test_a_credential_that_may_do_other_things_needs_a_socket_of_its_own(brain: Whole) -> None:
    """What the socket follows was let in by the first one, whose end would not be heard of any more."""
    own = brain.own.id
    async with client(brain.world, brain.key(own, "owner")) as one:
        answer = await one.ask("auth", token=brain.key(own, "owner", ["events:read", "conversations:any"]))
        assert (answer["op"], answer["status"]) == ("error", 403)
        assert (await one.ask("auth", token=brain.key(own, "owner")))["op"] == "ack"


async def test_one_user_does_not_take_all_sockets_of_its_tenant(brain: Whole) -> None:
    token, sockets = await brain.token(brain.own.id, "member"), brain.world.parts.sockets
    assert sockets is not None
    limits, sockets.limits = sockets.limits, replace(sockets.limits, user=1)
    try:
        async with client(brain.world, token) as first, client(brain.world, token) as second:
            code, reason = await second.closed()
            assert code == 1013 and "this user" in reason
            assert (await first.ask("ping"))["op"] == "pong"
            async with client(brain.world, brain.key(brain.own.id, "owner")) as other:
                assert (await other.ask("ping"))["op"] == "pong"
    finally:
        sockets.limits = limits


async def test_frames_of_one_conversation_wait_with_the_client_while_the_first_is_worked_on(
    brain: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, begun = asyncio.Event(), 0

    async def slow(self: Operations, socket: Connection, op: str, frame: Any, size: int) -> None:
        await held.wait()

    original = Connection.spawn

    def counted(self: Connection, work: Any) -> Any:
        nonlocal begun
        begun += 1
        return original(self, work)

    async with client(brain.world, brain.key(brain.own.id, "owner")) as one:
        monkeypatch.setattr(Operations, "obey", slow)
        monkeypatch.setattr(Connection, "spawn", counted)
        for _ in range(AT_ONCE + 20):
            await one.tell("typing", conversation_id=brain.own.things["conversation_id"])
        await one.tell("ping", ref="later")
        async with asyncio.timeout(10):
            while begun < AT_ONCE:
                await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):  # the ping is not read either
            async with asyncio.timeout(0.5):
                await one.connection.recv()
        assert begun == AT_ONCE
        held.set()
        assert (await one.until("pong"))["ref"] == "later"
