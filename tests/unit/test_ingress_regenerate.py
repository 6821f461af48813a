"""Replies made anew and several models at once, as the edge takes and tells them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from domain.errors import BudgetExceeded, ModelNotFound
from domain.ids import new_id
from serve_app.ingress.parts import IngressSettings
from tests.unit.ingress_world import Script, World, world
from tests.unit.test_ingress_turns import body_of, ids


@pytest.fixture
async def brain(database_url: str, tenant: str) -> AsyncIterator[World]:
    async with world(database_url, tenant, IngressSettings(poll=0.01)) as made:
        yield made


async def answered(brain: World, **fields: Any) -> dict[str, Any]:
    answer = await brain.send(await brain.conversation(), **fields)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_reply_is_made_anew_and_answers_as_a_sent_message_does(brain: World) -> None:
    first = await answered(brain)
    brain.hosts.script = Script(deltas=("Good ", "day"))
    path = f"/api/v1/messages/{first['message']['id']}/regenerate"
    answer = await brain.http.post(path, json={"model": "org/large", "parameters": {"seed": 7}})
    body = answer.json()
    assert answer.status_code == 200 and list(body) == ["turn", "user_message", "message"]
    assert body["user_message"]["id"] == first["user_message"]["id"]
    assert (body["message"]["content"], body["message"]["model"]) == ("Good day", "org/large")
    sent = brain.hosts.sent[-1]
    assert (sent.regenerates, sent.model, sent.parameters) == (first["message"]["id"], "org/large", {"seed": 7})
    live = await brain.events(path, body={"stream": True})
    assert ids(live)[0] == "1/1 turn.accepted" and ids(live)[-1].endswith("turn.completed")
    assert body_of(live[0])["user_message"]["content"] == "hi"
    assert await brain.events(f"/api/v1/turns/{body_of(live[0])['turn_id']}/events") == live
    assert (await brain.http.post(path)).status_code == 200  # a body is not needed


async def test_a_repeated_key_is_the_first_answer_and_another_body_is_refused(brain: World) -> None:
    first = await answered(brain)
    path, headers = f"/api/v1/messages/{first['message']['id']}/regenerate", {"idempotency-key": new_id("req")}
    answers = [await brain.http.post(path, json={}, headers=headers) for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert answers[1].headers["idempotent-replayed"] == "true"
    streamed = await brain.http.post(path, json={"stream": True}, headers=headers)
    assert "turn.completed" in streamed.text
    other = await brain.http.post(path, json={"model": "small"}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")


async def test_versions_are_listed_and_the_newest_one_stands(brain: World) -> None:
    first = await answered(brain)
    user, old = first["user_message"]["id"], first["message"]
    made = [old]
    for text in ("second", "third"):
        brain.hosts.script = Script(deltas=(text,))
        made.append((await brain.http.post(f"/api/v1/messages/{user}/regenerate", json={})).json()["message"])
    for asked in (user, *(message["id"] for message in made)):
        listed = (await brain.http.get(f"/api/v1/messages/{asked}/versions")).json()
        assert [one["id"] for one in listed["data"]] == [message["id"] for message in made]
        assert [one.pop("superseded_by") for one in listed["data"]] == [made[1]["id"], made[2]["id"], None]
        assert listed["data"] == made and listed["has_more"] is False
    page = (await brain.http.get(f"/api/v1/messages/{user}/versions?limit=1&after={old['id']}")).json()
    assert [one["id"] for one in page["data"]] == [made[1]["id"]] and page["has_more"]
    assert (await brain.http.get(f"/api/v1/messages/{old['id']}")).json() == old


async def test_when_the_version_that_stands_is_deleted_the_newest_other_one_does(brain: World) -> None:
    first = await answered(brain)
    user, old = first["user_message"]["id"], first["message"]["id"]
    second, third = [
        (await brain.http.post(f"/api/v1/messages/{old}/regenerate", json={})).json()["message"]["id"] for _ in "23"
    ]

    async def standing() -> list[Any]:
        listed = (await brain.http.get(f"/api/v1/messages/{user}/versions")).json()["data"]
        return [(one["id"], one["superseded_by"]) for one in listed]

    assert (await brain.http.delete(f"/api/v1/messages/{third}")).status_code == 200
    assert await standing() == [(old, second), (second, None)]
    assert (await brain.http.delete(f"/api/v1/messages/{old}")).status_code == 200
    assert await standing() == [(second, None)]
    assert (await brain.http.patch(f"/api/v1/messages/{second}", json={"metadata": {"a": 1}})).status_code == 200
    assert (await brain.http.delete(f"/api/v1/messages/{user}")).status_code == 200
    assert (await brain.http.post(f"/api/v1/messages/{second}/regenerate", json={})).status_code == 404


async def test_what_cannot_be_regenerated_is_refused(brain: World) -> None:
    first = await answered(brain)
    path = f"/api/v1/messages/{first['message']['id']}/regenerate"
    for unknown in (new_id("msg"), "nonsense", first["turn"]["id"]):
        assert (await brain.http.post(f"/api/v1/messages/{unknown}/regenerate", json={})).status_code == 404
        assert (await brain.http.get(f"/api/v1/messages/{unknown}/versions")).status_code == 404
    wrong = await brain.http.post(path, json={"content": "x"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (422, "content")
    unknown_model = await brain.http.post(path, json={"model": "nope"})
    assert (unknown_model.status_code, unknown_model.json()["error"]["code"]) == (404, "model_not_found")
    conversation = first["turn"]["conversation_id"]
    await brain.http.post(f"/api/v1/conversations/{conversation}/end")
    ended = await brain.http.post(path, json={})
    assert (ended.status_code, ended.json()["error"]["code"]) == (409, "conversation_ended")


async def test_a_conversation_that_is_busy_refuses_a_regeneration_where_asked(brain: World) -> None:
    first = await answered(brain)
    go = asyncio.Event()
    brain.hosts.script = Script(go=go)
    running = asyncio.create_task(brain.send(first["turn"]["conversation_id"]))
    while len(brain.hosts.sent) < 2 or not brain.hosts.running.get(brain.hosts.sent[-1].turn_id):
        await asyncio.wait((running,), timeout=0.01)
    path = f"/api/v1/messages/{first['message']['id']}/regenerate"
    refused = await brain.http.post(path, json={"on_busy": "reject"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conversation_busy")
    go.set()
    assert (await running).status_code == 200


async def test_several_models_are_sent_on_as_asked(brain: World) -> None:
    await answered(brain, models=["small", "org/large"], keep="all")
    assert (brain.hosts.sent[-1].models, brain.hosts.sent[-1].keep) == (("small", "org/large"), "all")
    await answered(brain, models=["small", "org/large"], model="auto")
    assert brain.hosts.sent[-1].keep == "first"


@pytest.mark.parametrize(
    ("fields", "param", "status"),
    [
        ({"models": ["small"]}, "models", 422),
        ({"models": ["small", "small"]}, "models", 422),
        ({"models": ["small", "auto"]}, "models", 422),
        ({"models": ["small", "org/large", "gpt-1", "gpt-2", "gpt-3"]}, "models", 422),
        ({"models": ["small", "org/large"], "model": "small"}, "model", 422),
        ({"models": ["small", "org/large"], "keep": "worst"}, "keep", 422),
        ({"keep": "best"}, "keep", 422),
        ({"models": ["small", "nope"]}, "model", 404),
    ],
)
async def test_several_models_must_make_sense(brain: World, fields: dict[str, Any], param: str, status: int) -> None:
    answer = await brain.send(await brain.conversation(), **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert status == 404 or brain.hosts.sent == [], "a model is looked for by the host"


@pytest.mark.parametrize(
    ("refusal", "status", "code", "param"),
    [
        (BudgetExceeded("the month's budget is spent"), 402, "budget_exceeded", None),
        (ModelNotFound("not allowed here"), 404, "model_not_found", "model"),
    ],
)
async def test_a_hosts_refusal_reaches_the_client(
    brain: World, refusal: Exception, status: int, code: str, param: str | None
) -> None:
    conversation = await brain.conversation()
    brain.hosts.refusal = refusal  # type: ignore[assignment]
    answer = await brain.send(conversation, model="small")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"], error["message"]) == (status, code, param, str(refusal))
