"""Users: who makes, reads, changes and removes whom; what becomes of their conversations; what an agent tells them."""

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from domain.ids import new_id
from tests.unit.users_world import PASSWORD, People, address, people


@pytest.fixture
async def brain(database_url: str, redis_url: str, tenant: str) -> AsyncIterator[People]:
    async with people(database_url, redis_url, tenant) as made:
        yield made


async def test_a_user_has_this_shape_and_is_created_once_a_key(brain: People) -> None:
    body = {"email": address(), "name": "Ada", "role": "agent", "preferences": {"a": 1}, "metadata": {"crm": "7"}}
    headers = {"idempotency-key": new_id("req")}
    first = await brain.ask("POST", "users", body, headers=headers)
    second = await brain.ask("POST", "users", body, headers=headers)
    made = first.json()
    assert (first.status_code, second.headers["idempotent-replayed"]) == (201, "true") and second.json() == made
    names = "id object tenant_id email name role status preferences metadata created_at updated_at last_active_at"
    assert list(made) == names.split() and made | body == made
    assert (made["object"], made["status"], made["last_active_at"]) == ("user", "active", None)
    assert await brain.call("GET", f"users/{made['id']}") == made
    taken = await brain.call("POST", "users", body, status=409)
    assert taken["error"]["code"] == "email_taken"
    assert brain.audited(made["id"]) == ["user.create"]


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("role", "operator", 422),
        ("role", "made-up", 422),
        ("status", "gone", 422),
        ("email", "x", 422),
        ("password", "short", 422),
        ("metadata", {"x": "y" * 20_000}, 422),
        ("id", "usr_1", 422),
        ("name", "a\0b", 422),
    ],
)
async def test_what_cannot_be_a_user_is_refused(brain: People, field: str, value: Any, status: int) -> None:
    body = {"email": address(), field: value}
    await brain.call("POST", "users", body, "owner", status)


async def test_nobody_gives_or_changes_a_role_that_may_more_than_it_may_itself(brain: People) -> None:
    await brain.call("POST", "users", {"email": address(), "role": "owner"}, "admin", 403)
    owner, agent = await brain.user("owner"), await brain.user("agent")
    for body in ({"role": "member"}, {"status": "disabled"}, {"email": address()}, {"password": PASSWORD + "x"}):
        await brain.call("PATCH", f"users/{owner['id']}", body, "admin", 403)
    await brain.call("DELETE", f"users/{owner['id']}", as_="admin", status=403)
    await brain.call("PATCH", f"users/{agent['id']}", {"role": "owner"}, "admin", 403)
    await brain.call("PATCH", f"users/{agent['id']}", {"role": "admin"}, "admin")
    assert (await brain.call("GET", f"users/{owner['id']}"))["role"] == "owner"


async def test_users_change_their_name_and_preferences_and_no_more(brain: People) -> None:
    (user, token), other = await brain.signed_in(), await brain.user()
    path = f"users/{user['id']}"
    changed = await brain.call("PATCH", path, {"name": "Ada", "preferences": {"b": 2}}, token)
    assert (changed["name"], changed["preferences"]) == ("Ada", {"b": 2})
    for body in (
        {"role": "owner"},
        {"status": "active"},
        {"email": address()},
        {"metadata": {}},
        {"password": PASSWORD},
    ):
        refused = await brain.call("PATCH", path, body, token, 403)
        assert refused["error"]["param"] == next(iter(body))
    await brain.call("PATCH", path, {}, token, 422)
    for method, body in (("GET", None), ("PATCH", {"name": "x"}), ("DELETE", None)):
        await brain.call(method, f"users/{other['id']}", body, token, 403)
        await brain.call(method, f"users/{other['id']}", body, "stranger", 404)
        await brain.call(method, "users/usr_1", body, "admin", 404)
    await brain.call("GET", "users/me", as_="service", status=404)


async def test_an_administrators_new_password_ends_what_is_open(brain: People) -> None:
    user, token = await brain.signed_in()
    email = address()
    await brain.call("PATCH", f"users/{user['id']}", {"password": PASSWORD + "!", "email": email}, "admin")
    await brain.call("GET", "users/me", as_=token, status=401)
    await brain.sign_in({"email": email}, PASSWORD + "!")
    await brain.call("POST", "auth/login", {"email": user["email"], "password": PASSWORD + "!"}, "service", 401)


async def test_users_are_listed_by_role_and_status_in_pages(brain: People) -> None:
    made = [
        await brain.user("agent" if n % 2 else "member", status="disabled" if n > 2 else "active") for n in range(5)
    ]
    ids = [user["id"] for user in made]
    seen: list[str] = []
    after = ""
    while True:
        page = await brain.call("GET", f"users?limit=2&order=asc{after}")
        seen += [user["id"] for user in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert seen == ids
    assert [u["id"] for u in (await brain.call("GET", "users?role=agent"))["data"]] == [ids[3], ids[1]]
    assert [u["id"] for u in (await brain.call("GET", "users?status=disabled&role=member"))["data"]] == [ids[4]]
    assert (await brain.call("GET", "users", as_="stranger"))["data"] == []
    await brain.call("GET", "users?status=gone", status=422)
    await brain.call("GET", "users", as_="member", status=403)


async def test_when_a_user_was_active_is_written_off_the_path(brain: People) -> None:
    user, token = await brain.signed_in()
    await brain.call("GET", "users/me", as_=token)
    await brain.identity.last_active.write()
    first = (await brain.call("GET", f"users/{user['id']}"))["last_active_at"]
    assert first is not None
    await brain.call("GET", "users/me", as_=token)
    await brain.identity.last_active.write()
    assert (await brain.call("GET", f"users/{user['id']}"))["last_active_at"] == first, "once a minute"


async def told(brain: People, token: str) -> str:
    """A conversation of the user with one turn."""
    made = await brain.call("POST", "conversations", {}, token, 201)
    await brain.call("POST", f"conversations/{made['id']}/messages", {"content": "hi"}, token)
    return str(made["id"])


async def test_what_a_user_did_and_spent_is_told_to_it_and_to_who_reads_users(brain: People) -> None:
    (user, token), (_, other) = await brain.signed_in(), await brain.signed_in()
    first, second = await told(brain, token), await told(brain, token)
    await told(brain, other)
    path = f"users/{user['id']}"
    for as_ in (token, "agent"):
        found = await brain.call("GET", f"{path}/conversations", as_=as_)
        assert [one["id"] for one in found["data"]] == [second, first]
        usage = await brain.call("GET", f"{path}/usage", as_=as_)
        assert [(one["model"], one["calls"], one["total_tokens"]) for one in usage["by_model"]] == [("small", 2, 10)]
        assert (usage["totals"]["calls"], usage["totals"]["turns"]) == (2, 2)
        assert usage["totals"]["cost_usd"] == pytest.approx(2.2e-06)
    seen: list[Any] = []
    after = ""
    while True:
        page = await brain.call("GET", f"{path}/activity?limit=4{after}", as_=token)
        seen += page["data"]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    kinds = [(one["object"], one["conversation_id"]) for one in seen]
    assert sorted(kinds) == sorted(
        [("message", c) for c in (first, second)] * 2 + [("turn", c) for c in (first, second)]
    )
    assert [one["conversation_id"] for one in seen[:3]] == [second] * 3
    for what in ("conversations", "usage", "activity"):
        await brain.call("GET", f"{path}/{what}", as_=other, status=403)
        await brain.call("GET", f"{path}/{what}", as_="stranger", status=404)
    none = await brain.call("GET", f"{path}/usage?from=2020-01-01&to=2020-01-02", as_=token)
    assert none["totals"]["calls"] == 0 and none["by_model"] == []


async def test_what_an_agent_tells_is_a_message_of_the_conversation(brain: People) -> None:
    user, token = await brain.signed_in()
    conversation = await told(brain, token)
    body = {"conversation_id": conversation, "content": "The parcel was found.", "metadata": {"case": 7}}
    headers = {"idempotency-key": new_id("req")}
    path = f"users/{user['id']}/messages"
    answers = [await brain.ask("POST", path, body, "agent", headers=headers) for _ in range(4)]
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert [answer.headers.get("idempotent-replayed") for answer in answers].count("true") == 3
    message = answers[0].json()
    assert (message["role"], message["seq"], message["content"]) == ("system", 3, "The parcel was found.")
    assert message["metadata"] == {"case": 7} and message["turn_id"] == ""
    other = await brain.ask("POST", path, {**body, "content": "Lost."}, "agent", headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")
    after = await brain.call("POST", f"conversations/{conversation}/messages", {"content": "thanks"}, token)
    assert after["user_message"]["seq"] == 4
    listed = await brain.call("GET", f"conversations/{conversation}/messages", as_=token)
    assert [one["role"] for one in listed["data"]] == ["user", "assistant", "system", "user", "assistant"]
    assert (await brain.call("GET", f"conversations/{conversation}", as_=token))["message_count"] == 5
    await brain.call("GET", f"messages/{message['id']}", as_=token)
    with psycopg.connect(brain.database_url) as connection:
        rows = connection.execute(
            "SELECT payload->>'message_id' FROM brain.outbox WHERE tenant_id = %s AND topic = 'message.appended'",
            (brain.tenant,),
        ).fetchall()
    assert rows == [(message["id"],)]


async def test_who_may_not_and_where_it_does_not_belong_nothing_is_told(brain: People) -> None:
    (user, token), (other, his) = await brain.signed_in(), await brain.signed_in()
    conversation = await told(brain, token)
    body = {"conversation_id": conversation, "content": "x"}
    for as_, status in ((token, 403), ("member", 403), ("service", 403), ("stranger", 404), ("agent", 201)):
        await brain.call("POST", f"users/{user['id']}/messages", body, as_, status)
    await brain.call("POST", f"users/{other['id']}/messages", body, "agent", 404)
    await brain.call("POST", f"users/{user['id']}/messages", {**body, "conversation_id": "conv_1"}, "agent", 404)
    await brain.call("POST", f"users/{user['id']}/messages", {**body, "content": ""}, "agent", 422)
    await brain.call("POST", f"conversations/{conversation}/end", as_=token)
    ended = await brain.call("POST", f"users/{user['id']}/messages", body, "agent", 409)
    assert ended["error"]["code"] == "conversation_ended"
    await brain.call("GET", f"conversations/{conversation}", as_=his, status=404)


@pytest.mark.parametrize("erase", [False, True])
async def test_a_user_who_goes_leaves_conversations_of_nobody_or_none(brain: People, erase: bool) -> None:
    user, token = await brain.signed_in()
    secret = brain.key("member")
    with psycopg.connect(brain.database_url) as connection:
        connection.execute(
            "UPDATE brain.api_keys SET user_id = %s WHERE id ="
            " (SELECT max(id) FROM brain.api_keys WHERE tenant_id = %s)",
            (user["id"], brain.tenant),
        )
    assert (await brain.call("GET", "users/me", as_=secret))["id"] == user["id"]
    conversations = [await told(brain, token) for _ in range(3)]
    path = f"users/{user['id']}{'?erase=true' if erase else ''}"
    if erase:
        await brain.call("DELETE", path, as_="admin", status=403)
    gone = await brain.call("DELETE", path, as_="owner")
    counts = (gone["conversations_deleted"], gone["conversations_kept"])
    assert gone["deleted"] is True and counts == ((3, 0) if erase else (0, 3))
    for credential in (token, secret):
        await brain.call("GET", "conversations", as_=credential, status=401)
    await brain.call("GET", f"users/{user['id']}", as_="owner", status=404)
    for conversation in conversations:
        answer = await brain.ask("GET", f"conversations/{conversation}", as_="owner")
        assert answer.status_code == (404 if erase else 200)
        assert erase or answer.json()["user_id"] is None
    await brain.call("POST", "users", {"email": user["email"]}, "owner", 201)
    assert brain.audited(user["id"])[-1] == "user.delete"


async def test_users_remove_themselves(brain: People) -> None:
    user, token = await brain.signed_in()
    await told(brain, token)
    gone = await brain.call("DELETE", f"users/{user['id']}?erase=true", as_=token)
    assert gone["conversations_deleted"] == 1
    await brain.call("GET", "users/me", as_=token, status=401)
