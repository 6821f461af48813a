"""Conversations and messages: creation once, pages, changes, export, figures."""

import asyncio
import json
from collections.abc import AsyncIterator

import psycopg
import pytest

from domain.ids import new_id
from serve_app.ingress.parts import IngressSettings
from storage import insight
from storage.access import key_hash
from storage.postgres import reading
from tests.unit.ingress_world import Script, World, world


@pytest.fixture
async def brain(database_url: str, tenant: str) -> AsyncIterator[World]:
    async with world(database_url, tenant, IngressSettings(poll=0.01)) as made:
        yield made


async def test_a_conversation_has_the_shape_of_the_contract(brain: World) -> None:
    body = {"user_id": "u1", "title": "T", "metadata": {"zz": 1, "a": {"b": [1.5]}}, "system_prompt": "Be brief."}
    made = (await brain.http.post("/api/v1/conversations", json=body)).json()
    names = "id object tenant_id user_id title status metadata system_prompt message_count created_at updated_at"
    assert list(made) == names.split()
    assert made | body == made
    assert (made["object"], made["status"], made["message_count"]) == ("conversation", "active", 0)
    assert made["tenant_id"] == brain.tenant
    assert made["created_at"].endswith("Z")
    assert (await brain.http.get(f"/api/v1/conversations/{made['id']}")).json() == made
    assert (await brain.http.post("/api/v1/conversations")).status_code == 201, "every field may be left out"


async def test_equal_creations_with_one_key_make_one_conversation(brain: World) -> None:
    headers, body = {"idempotency-key": new_id("req")}, {"metadata": {"b": 1e16, "aa": -0.0}, "title": "once"}
    answers = await asyncio.gather(
        *(brain.http.post("/api/v1/conversations", json=body, headers=headers) for _ in range(6))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert [answer.headers.get("idempotent-replayed") for answer in answers].count("true") == 5
    other = await brain.http.post("/api/v1/conversations", json={"title": "twice"}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\tinside"])
async def test_an_idempotency_key_must_be_printable(brain: World, key: str) -> None:
    answer = await brain.http.post("/api/v1/conversations", json={}, headers={"idempotency-key": key})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_pages_give_every_conversation_once(brain: World) -> None:
    user = new_id("usr")
    made = [await brain.conversation(user_id=user) for _ in range(5)]
    for order, expected in (("asc", made), ("desc", made[::-1])):
        seen: list[str] = []
        query: dict[str, str] = {"user_id": user, "limit": "2", "order": order}
        while True:
            page = (await brain.http.get("/api/v1/conversations", params=query)).json()
            assert list(page) == ["object", "data", "first_id", "last_id", "has_more"]
            seen += [one["id"] for one in page["data"]]
            assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], seen[-1])
            if not page["has_more"]:
                break
            query["after"] = page["last_id"]
        assert seen == expected
    newest = (await brain.http.get("/api/v1/conversations", params={"user_id": user, "limit": 1})).json()
    assert newest["data"][0]["id"] == made[-1]
    await brain.http.post(f"/api/v1/conversations/{made[0]}/end")
    ended = (await brain.http.get("/api/v1/conversations", params={"user_id": user, "status": "ended"})).json()
    assert [one["id"] for one in ended["data"]] == made[:1]
    nothing = (await brain.http.get("/api/v1/conversations", params={"user_id": "nobody"})).json()
    assert nothing == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


async def test_another_tenants_things_are_404(brain: World, database_url: str) -> None:
    conversation = await brain.conversation()
    turn = (await brain.send(conversation)).json()
    stranger, key = new_id("ten"), "stranger" + new_id("key")
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, 'other')", (stranger,))
        connection.execute(
            "INSERT INTO brain.api_keys (tenant_id, id, name, hash, role) VALUES (%s, %s, 'k', %s, 'member')",
            (stranger, new_id("key"), key_hash(key)),
        )
    headers = {"authorization": f"Bearer {key}"}
    for path in (
        f"conversations/{conversation}",
        f"conversations/{conversation}/messages",
        f"conversations/{conversation}/export",
        f"messages/{turn['message']['id']}",
        f"turns/{turn['turn']['id']}",
        f"turns/{turn['turn']['id']}/events",
    ):
        assert (await brain.http.get(f"/api/v1/{path}", headers=headers)).status_code == 404
    for method, path in (("DELETE", f"conversations/{conversation}"), ("POST", f"turns/{turn['turn']['id']}/cancel")):
        assert (await brain.http.request(method, f"/api/v1/{path}", headers=headers)).status_code == 404
    assert (await brain.http.get("/health/detailed", headers=headers)).status_code == 403


async def test_a_patch_sets_the_given_fields_alone(brain: World) -> None:
    conversation = await brain.conversation(title="old", user_id="u", metadata={"a": 1})
    changed = await brain.http.patch(
        f"/api/v1/conversations/{conversation}", json={"title": None, "metadata": {"b": 2}}
    )
    assert changed.status_code == 200
    body = changed.json()
    assert (body["title"], body["user_id"], body["metadata"]) == (None, "u", {"b": 2})
    for wrong in ({}, {"metadata": None}, {"status": "ended"}):
        assert (await brain.http.patch(f"/api/v1/conversations/{conversation}", json=wrong)).status_code == 422


async def test_an_ended_conversation_takes_no_message_and_a_deleted_one_is_gone(brain: World) -> None:
    conversation = await brain.conversation()
    ended = await brain.http.post(f"/api/v1/conversations/{conversation}/end")
    assert ended.json()["status"] == "ended"
    refused = await brain.send(conversation)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conversation_ended")
    deleted = await brain.http.delete(f"/api/v1/conversations/{conversation}")
    assert deleted.json() == {"id": conversation, "object": "conversation", "deleted": True}
    assert (await brain.http.get(f"/api/v1/conversations/{conversation}")).status_code == 404
    assert (await brain.http.delete(f"/api/v1/conversations/{conversation}")).status_code == 404


async def test_messages_come_in_order_and_with_their_context(brain: World) -> None:
    conversation = await brain.conversation()
    for number in range(4):
        await brain.send(conversation, f"question {number}")
    path = f"/api/v1/conversations/{conversation}/messages"
    page = (await brain.http.get(path, params={"limit": 3})).json()
    assert [one["seq"] for one in page["data"]] == [1, 2, 3]
    rest = (await brain.http.get(path, params={"after": page["last_id"]})).json()
    assert [one["seq"] for one in rest["data"]] == [4, 5, 6, 7, 8]
    back = (await brain.http.get(path, params={"order": "desc", "limit": 2})).json()
    assert [one["seq"] for one in back["data"]] == [8, 7]
    middle = page["last_id"]
    found = (await brain.http.get(f"/api/v1/messages/{middle}", params={"context": 2})).json()
    around = found.pop("context")
    assert found == page["data"][2]
    assert [[one["seq"] for one in side] for side in (around["before"], around["after"])] == [[1, 2], [4, 5]]
    assert (await brain.http.get(path, params={"after": new_id("msg")})).status_code == 404


async def test_a_messages_metadata_is_replaced_and_a_deleted_message_leaves_its_number(brain: World) -> None:
    conversation = await brain.conversation()
    sent = (await brain.send(conversation, metadata={"a": 1})).json()
    message = sent["user_message"]["id"]
    changed = await brain.http.patch(f"/api/v1/messages/{message}", json={"metadata": {"b": 2}})
    assert changed.json()["metadata"] == {"b": 2}
    deleted = await brain.http.delete(f"/api/v1/messages/{message}")
    assert deleted.json() == {"id": message, "object": "message", "deleted": True}
    assert (await brain.http.delete(f"/api/v1/messages/{message}")).status_code == 404
    again = (await brain.send(conversation, "more")).json()
    assert again["user_message"]["seq"] == 3
    found = (await brain.http.get(f"/api/v1/conversations/{conversation}")).json()
    assert found["message_count"] == 3


async def test_what_was_taken_out_of_a_message_goes_with_it(brain: World) -> None:
    conversation = await brain.conversation()
    sent = (await brain.send(conversation)).json()
    turn = sent["turn"]["id"]
    told = {"name": "track_order", "confidence": 0.9, "parameters": {"order": "A-17"}}
    layout = [{"type": "turn.accepted"}, {"type": "turn.intent", "intent": told}, 5]
    async with reading(brain.pool, brain.tenant) as lent:
        await lent.execute(
            "UPDATE brain.turns SET intent = $2, layout = $3, trace = $4 WHERE id = $1",
            turn,
            told,
            layout,
            {"understanding": {"entities": [{"text": "A-17"}]}, "chosen": "m"},
        )
    assert (await brain.http.delete(f"/api/v1/messages/{sent['user_message']['id']}")).status_code == 200
    async with reading(brain.pool, brain.tenant) as lent:
        kept = dict(await lent.fetchrow("SELECT intent, layout, trace FROM brain.turns WHERE id = $1", turn))
    told["parameters"] = {}
    assert kept == {"intent": told, "layout": layout, "trace": {"chosen": "m"}}


async def test_no_message_is_deleted_beside_an_unfinished_turn(brain: World) -> None:
    conversation = await brain.conversation()
    message = (await brain.send(conversation)).json()["message"]["id"]
    go = asyncio.Event()
    brain.hosts.script = Script(go=go)
    waiting = asyncio.create_task(brain.send(conversation, "slow"))
    while len(brain.hosts.running) < 2:
        await asyncio.wait((waiting,), timeout=0.01)
    refused = await brain.http.delete(f"/api/v1/messages/{message}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conversation_busy")
    go.set()
    assert (await waiting).status_code == 200
    assert (await brain.http.delete(f"/api/v1/messages/{message}")).status_code == 200


async def test_an_export_holds_every_message_in_each_format(brain: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insight, "EXPORT_PAGE", 3)
    conversation = await brain.conversation(title="Talk")
    for number in range(3):
        await brain.send(conversation, f"question {number}")
    path = f"/api/v1/conversations/{conversation}/export"
    whole = (await brain.http.get(path)).json()
    assert [one["seq"] for one in whole["messages"]] == [1, 2, 3, 4, 5, 6]
    assert whole["conversation"]["id"] == conversation
    answer = await brain.http.get(path, params={"format": "jsonl"})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines == [whole["conversation"], *whole["messages"]]
    assert f"{conversation}.jsonl" in answer.headers["content-disposition"]
    text = (await brain.http.get(path, params={"format": "markdown"})).text
    assert text.startswith("# Talk\n")
    assert text.count("## Assistant") == 3
    assert "question 2" in text
    assert (await brain.http.get(path, params={"format": "pdf"})).status_code == 422
    empty = (await brain.http.get(f"/api/v1/conversations/{await brain.conversation()}/export")).json()
    assert empty["messages"] == []


async def test_metrics_count_turns_tokens_cost_and_time(brain: World) -> None:
    conversation = await brain.conversation()
    await brain.send(conversation)
    brain.hosts.script = Script(deltas=(), error={"message": "no", "type": "provider_error", "code": "provider_error"})
    await brain.send(conversation)
    figures = (await brain.http.get(f"/api/v1/conversations/{conversation}/metrics")).json()
    assert (figures["turns"]["completed"], figures["turns"]["failed"], figures["turns"]["total"]) == (1, 1, 2)
    assert figures["messages"] == {"user": 2, "assistant": 1, "total": 3}
    assert figures["usage"]["total_tokens"] == 10
    assert figures["cost_usd"] == pytest.approx(2.2e-06)
    assert figures["latency_ms"]["first_token"] == {"p50": 12.5, "p95": 12.5, "mean": 12.5}
    assert figures["latency_ms"]["turn"]["p95"] > 0
    nothing = (await brain.http.get(f"/api/v1/conversations/{await brain.conversation()}/metrics")).json()
    assert nothing["latency_ms"]["turn"] == {"p50": None, "p95": None, "mean": None}


async def test_the_native_list_of_models_has_pages_and_no_patterns(brain: World) -> None:
    listed = (await brain.http.get("/api/v1/models", params={"limit": 2})).json()
    assert [one["id"] for one in listed["data"]] == ["small", "org/large"]
    assert listed["has_more"]
    rest = (await brain.http.get("/api/v1/models", params={"after": "org/large"})).json()
    assert [one["id"] for one in rest["data"]] == ["scripted"]
    card = (await brain.http.get("/api/v1/models/org/large")).json()
    assert (card["id"], card["provider"], card["price_in"]) == ("org/large", "acme", None)
    assert (await brain.http.get("/api/v1/models/gpt-5")).json()["id"] == "gpt-5"
    missing = await brain.http.get("/api/v1/models/nope")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
