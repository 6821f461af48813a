"""Intents through the API: defined, trained, told apart, rolled back; and each tenant's its own."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from domain.ids import new_id
from serve_app.catalog_watch import CatalogWatch
from serve_app.ingress.parts import IngressSettings, Intents
from storage.catalog import CachedSettings, PostgresCatalog
from storage.intents import PostgresIntents
from tests.unit.ingress_world import CATALOG, World, world
from tests.unit.intents_world import HOURS, PARCEL, REFUND, Understanders, examples_json, understanders
from tests.unit.test_ingress_models import make_key

BOTH = examples_json(refund=REFUND, parcel=PARCEL)
TWICE_AS_MANY = [*BOTH, *({**one, "text": f"{one['text']} now"} for one in BOTH)]


@dataclass
class Brain:
    world: World
    understanders: Understanders
    tenant: str
    admin: dict[str, str]
    member: dict[str, str]
    other: dict[str, str]

    async def call(self, method: str, path: str, body: Any = None, headers: Any = None, status: int = 200) -> Any:
        path = f"/api/v1/{path}"
        answer = await self.world.http.request(method, path, json=body, headers={**self.admin, **(headers or {})})
        assert answer.status_code == status, answer.text
        return answer.json()

    async def define(self, name: str, examples: list[str], **fields: Any) -> Any:
        return await self.call("POST", "intents", {"name": name, "examples": examples, **fields}, status=201)

    async def train(self, **body: Any) -> Any:
        return await self.call("POST", "intents/train", {"wait": True, **body})

    async def classify(self, text: str, headers: Any = None) -> Any:
        return await self.call("POST", "intents/classify", {"text": text}, headers)


@pytest.fixture
async def brain(database_url: str, tenant: str, tmp_path: Path) -> AsyncIterator[Brain]:
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM brain.intent_trainings")
    async with (
        world(database_url, tenant, IngressSettings(poll=0.01)) as made,
        understanders(made.pool, tmp_path) as found,
    ):
        store = PostgresCatalog(made.pool)

        async def use(catalog: Any) -> None: ...

        async def wake() -> None:
            found.trainer.wake()

        made.parts.classifier = found.replicas[0]
        made.parts.registry = CatalogWatch(store, use, CachedSettings(store.settings))
        made.parts.intents = Intents(PostgresIntents(made.pool), found.trainings, found.heads, wake)
        made.parts.catalog = CATALOG
        own, other = new_id("ten"), new_id("ten")
        keys = (make_key(database_url, *key) for key in ((own, "admin"), (own, "member"), (other, "admin")))
        yield Brain(made, found, own, *keys)


# Definitions


async def test_an_intent_is_defined_read_replaced_and_removed(brain: Brain) -> None:
    slots = [{"name": "order", "kind": "order_number", "required": True}]
    made = await brain.define("refund", REFUND, description="wants money back", slots=slots, needs_products=True)
    assert made["id"].startswith("int_") and made["object"] == "intent"
    assert made["examples"] == REFUND and made["slots"][0]["kind"] == "order_number" and made["needs_products"]
    assert await brain.call("GET", f"intents/{made['id']}") == made
    changed = await brain.call("PUT", f"intents/{made['id']}", {"name": "returns"})
    assert (changed["id"], changed["name"], changed["examples"]) == (made["id"], "returns", [])
    listed = await brain.call("GET", "intents")
    assert listed["data"] == [changed] and listed["first_id"] == made["id"] and not listed["has_more"]
    assert listed["head"]["version"] == 0 and listed["head"]["intents"] == ["greeting", "other", "payment"]
    gone = await brain.call("DELETE", f"intents/{made['id']}")
    assert gone == {"id": made["id"], "object": "intent", "deleted": True}
    await brain.call("GET", f"intents/{made['id']}", status=404)


async def test_intents_come_in_pages_the_newest_first(brain: Brain) -> None:
    made = [(await brain.define(name, []))["id"] for name in ("a", "b", "c")]
    page = await brain.call("GET", "intents?limit=2")
    assert [one["id"] for one in page["data"]] == made[:0:-1] and page["has_more"]
    page = await brain.call("GET", f"intents?limit=2&after={made[1]}")
    assert [one["name"] for one in page["data"]] == ["a"] and not page["has_more"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"examples": []}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a", "examples": ["fine", " "]}, "examples.1"),
        ({"name": "a", "examples": "x"}, "examples"),
        ({"name": "a", "slots": [{"name": "x", "kind": "nonsense"}]}, "slots.0.kind"),
        ({"name": "a", "slots": [{"name": "x", "kind": "price"}] * 2}, "slots"),
        ({"name": "a", "slots": [{"name": "x", "kind": "pattern", "pattern": "("}]}, "slots"),
        ({"name": "a", "more": 1}, "more"),
    ],
)
async def test_a_wrong_field_of_an_intent_is_named(brain: Brain, body: Any, param: str) -> None:
    answer = await brain.call("POST", "intents", body, status=422)
    assert answer["error"]["param"] == param


async def test_a_name_that_is_taken_and_a_key_that_comes_again(brain: Brain) -> None:
    key = {"idempotency-key": "once"}
    made = await brain.call("POST", "intents", {"name": "a"}, key, status=201)
    assert await brain.call("POST", "intents", {"name": "a"}, key, status=201) == made
    answer = await brain.call("POST", "intents", {"name": "a"}, status=409)
    assert answer["error"]["code"] == "name_taken"
    answer = await brain.call("POST", "intents", {"name": "b"}, key, status=422)
    assert answer["error"]["code"] == "idempotency_mismatch"


# Training


async def test_a_training_is_a_job_with_progress_whose_head_is_used_by_itself(brain: Brain) -> None:
    brain.understanders.embedder.hold = asyncio.Event()
    job = await brain.call("POST", "intents/train", {"examples": TWICE_AS_MANY}, status=202)
    assert job["id"].startswith("train_") and job["object"] == "intent_training"
    assert job["status"] in ("queued", "running") and job["version"] is None and job["error"] is None
    brain.understanders.embedder.hold.set()
    async with asyncio.timeout(30):
        seen = []
        while (now := await brain.call("GET", f"intents/training/{job['id']}"))["status"] != "completed":
            seen.append(now["progress"])
            await asyncio.sleep(0.02)
    assert seen == sorted(seen) and now["progress"] == 1 and now["version"] >= 1
    assert now["metrics"]["examples"] == 20 and now["metrics"]["held_out"]["first"]["accuracy"] > 0.5
    await brain.understanders.version_everywhere(brain.tenant, now["version"])
    found = await brain.classify("I want my money back")
    assert found["intent"]["name"] == found["ranked"][0]["name"] == "refund" and found["version"] == now["version"]
    assert set(found) == {
        *("intent", "ranked", "out_of_scope", "out_of_scope_score", "entities", "clarification", "version")
    }
    assert 0 <= found["out_of_scope_score"] <= 1 and found["out_of_scope"] in (True, False)


async def test_stored_intents_are_trained_where_no_examples_are_given(brain: Brain) -> None:
    slots = [{"name": "carrier", "kind": "list", "values": [{"value": "Speedy Post", "synonyms": ["speedy"]}]}]
    await brain.define("refund", REFUND)
    await brain.define("parcel", PARCEL, slots=slots, needs_products=True)
    done = await brain.train()
    assert done["status"] == "completed" and done["version"]
    await brain.understanders.version_everywhere(brain.tenant, done["version"])
    text = "where is my parcel, Speedy?"
    found = await brain.classify(text)
    assert found["intent"]["parameters"] == {"carrier": "Speedy Post"}
    [entity] = found["entities"]
    assert entity == {"slot": "carrier", "value": "Speedy Post", "text": "Speedy", "start": 20, "end": 26}
    assert text[entity["start"] : entity["end"]] == entity["text"]
    listed = await brain.call("GET", "intents")
    assert listed["head"] == {
        "version": done["version"],
        "active": done["version"],
        "embedder": "words@1",
        "intents": ["parcel", "refund"],
        "problem": None,
    }


TWICE = [{"text": "Opening  HOURS", "intent": "refund"}, {"text": "opening hours", "intent": "parcel"}]


@pytest.mark.parametrize(
    ("examples", "words", "param"),
    [
        (examples_json(refund=REFUND), ("'refund'",), "examples"),
        ([*BOTH, *TWICE], ("example 1", "'opening hours'", "'parcel'", "'refund'"), "examples"),
        ([*BOTH, {"text": "  ", "intent": "refund"}], ("example 1", "'refund'", "has no text"), "examples"),
        ([{"text": "a"}], ("examples.0.intent: Field required",), "examples.0.intent"),
        ([], ("examples",), "examples"),
    ],
)
async def test_bad_examples_are_named_and_the_old_head_goes_on(
    brain: Brain, examples: Any, words: tuple[str, ...], param: str
) -> None:
    done = await brain.train(examples=BOTH, effort="first")
    error = (await brain.call("POST", "intents/train", {"examples": examples}, status=422))["error"]
    assert all(word in error["message"] for word in words) and error["param"].startswith(param)
    await brain.understanders.version_everywhere(brain.tenant, done["version"])
    assert (await brain.classify("money back"))["intent"]["name"] == "refund"


async def test_nothing_stored_is_nothing_to_train_from(brain: Brain) -> None:
    answer = await brain.call("POST", "intents/train", status=422)
    assert answer["error"]["code"] == "invalid_examples" and "of the stored intents" in answer["error"]["message"]
    answer = await brain.call(
        "POST", "intents/train", {"examples": BOTH, "validation": [{"text": "x", "intent": "no"}]}, status=422
    )
    assert answer["error"]["param"] == "validation.0"


async def test_the_same_key_starts_one_training(brain: Brain) -> None:
    headers = {"idempotency-key": "t"}
    first = await brain.call("POST", "intents/train", {"examples": BOTH}, headers, status=202)
    again = await brain.call("POST", "intents/train", {"examples": BOTH, "wait": True}, headers)
    assert again["id"] == first["id"] and again["status"] == "completed"
    await brain.call("POST", "intents/train", {"examples": BOTH[1:]}, headers, status=422)


async def test_more_trainings_than_may_wait_are_refused(brain: Brain) -> None:
    brain.understanders.embedder.hold = asyncio.Event()
    headers = brain.admin
    answers = [
        await brain.world.http.post("/api/v1/intents/train", json={"examples": BOTH}, headers=headers) for _ in range(7)
    ]
    assert {answer.status_code for answer in answers} == {202, 429}
    assert "retry-after" in answers[-1].headers
    brain.understanders.embedder.hold.set()


# Classification and evaluation


async def test_many_texts_are_classified_in_order_by_one_version(brain: Brain) -> None:
    done = await brain.train(examples=BOTH)
    await brain.understanders.version_everywhere(brain.tenant, done["version"])
    texts = [*REFUND, *PARCEL] * 20
    found = (await brain.call("POST", "intents/classify", {"texts": texts}))["data"]
    assert [one["intent"]["name"] for one in found] == (["refund"] * 5 + ["parcel"] * 5) * 20
    assert {one["version"] for one in found} == {done["version"]}


@pytest.mark.parametrize(
    "body", [{}, {"text": "a", "texts": ["b"]}, {"text": ""}, {"texts": []}, {"texts": ["x"] * 257}, {"texts": [""]}]
)
async def test_what_cannot_be_classified_is_422(brain: Brain, body: Any) -> None:
    await brain.call("POST", "intents/classify", body, status=422)


async def test_an_evaluation_tells_accuracy_by_intent_and_what_is_confused(brain: Brain) -> None:
    done = await brain.train(examples=BOTH)
    await brain.understanders.version_everywhere(brain.tenant, done["version"])
    asked = [*BOTH, {"text": "refund it", "intent": "parcel"}]
    found = await brain.call("POST", "intents/evaluate", {"examples": asked})
    assert found["accuracy"] == pytest.approx(10 / 11) and found["version"] == done["version"]
    assert [one["intent"] for one in found["per_intent"]] == ["parcel", "refund"]
    assert found["confusions"] == [{"intent": "parcel", "predicted": "refund", "count": 1}]
    assert 0 <= found["expected_calibration_error"] <= 1 and 0 < found["macro_f1"] < 1
    answer = await brain.call("POST", "intents/evaluate", {"examples": [{"text": " ", "intent": "a"}]}, status=422)
    assert answer["error"]["param"] == "examples.0.text"


# Versions


async def test_a_rollback_is_used_by_every_replica(brain: Brain) -> None:
    first = (await brain.train(examples=BOTH, effort="first"))["version"]
    changed = examples_json(hours=HOURS, refund=REFUND)
    second = (await brain.train(examples=changed, effort="first"))["version"]
    assert second == first + 1
    await brain.understanders.version_everywhere(brain.tenant, second)
    back = await brain.call("POST", "intents/rollback", {"version": first})
    assert (back["version"], back["active"]) == (first, True)
    await brain.understanders.version_everywhere(brain.tenant, first)
    found = await brain.call("GET", "intents/versions")
    assert [(one["version"], one["active"]) for one in found["data"]] == [(second, False), (first, True), (0, False)]
    assert (await brain.call("POST", "intents/rollback", {"version": 0}))["version"] == 0
    await brain.understanders.version_everywhere(brain.tenant, 0)
    assert (await brain.classify("hello there"))["intent"]["name"] == "greeting"
    await brain.call("POST", "intents/rollback", {"version": 99}, status=404)
    for wrong in (-1, "1", None, 2**31):
        await brain.call("POST", "intents/rollback", {"version": wrong}, status=422)


async def test_members_read_and_administrators_write(brain: Brain) -> None:
    made = await brain.define("refund", REFUND)
    for method, path, body in (
        ("POST", "intents", {"name": "x"}),
        ("PUT", f"intents/{made['id']}", {"name": "x"}),
        ("DELETE", f"intents/{made['id']}", None),
        ("POST", "intents/train", {"examples": BOTH}),
        ("POST", "intents/rollback", {"version": 0}),
    ):
        await brain.call(method, path, body, brain.member, status=403)
        await brain.call(method, path, body, {"authorization": "Bearer nobody"}, status=401)
    for path in ("intents", f"intents/{made['id']}", "intents/versions", "intents/common"):
        await brain.call("GET", path, headers=brain.member)
    assert (await brain.classify("hello", brain.member))["version"] == 0


async def test_another_tenant_sees_nothing_of_it(brain: Brain) -> None:
    made = await brain.define("refund", REFUND)
    done = await brain.train(examples=BOTH)
    for method, path, body in (
        ("GET", f"intents/{made['id']}", None),
        ("PUT", f"intents/{made['id']}", {"name": "x"}),
        ("DELETE", f"intents/{made['id']}", None),
        ("GET", f"intents/training/{done['id']}", None),
        ("POST", "intents/rollback", {"version": done["version"]}),
        ("GET", f"intents?tenant_id={brain.tenant}", None),
        ("GET", "intents/int_nonsense", None),
        ("GET", "intents/training/train_1", None),
    ):
        await brain.call(method, path, body, brain.other, status=404)
    assert (await brain.call("GET", "intents", headers=brain.other))["data"] == []
    assert (await brain.classify("money back", brain.other))["version"] == 0
    operator = {"authorization": str(brain.world.http.headers["authorization"])}
    seen = await brain.call("GET", f"intents?tenant_id={brain.tenant}", headers=operator)
    assert [one["id"] for one in seen["data"]] == [made["id"]]


# Messages


@pytest.fixture
async def said(brain: Brain, database_url: str) -> list[tuple[str, str, float]]:
    """Messages of a conversation with what they were taken for, in order: (id, intent, confidence)."""
    headers = brain.admin
    answer = await brain.world.http.post("/api/v1/conversations", json={}, headers=headers)
    conversation, found = answer.json()["id"], []
    for name, confidence in (("refund", 0.9), ("parcel", 0.4), ("refund", 0.3), ("refund", 0.6)):
        answer = await brain.world.send(conversation, f"{name} {confidence}", headers)
        turn = answer.json()["turn"]["id"]
        with psycopg.connect(database_url) as connection:
            connection.execute(
                "UPDATE brain.turns SET intent = jsonb_build_object('name', %s::text, 'confidence', %s::float8,"
                " 'parameters', '{}'::jsonb) WHERE id = %s",
                (name, confidence, turn),
            )
        found.append((answer.json()["user_message"]["id"], name, confidence))
    return found


async def test_messages_are_found_by_intent_and_confidence(brain: Brain, said: list[tuple[str, str, float]]) -> None:
    async def ids(query: str, headers: Any = None) -> list[str]:
        return [one["id"] for one in (await brain.call("GET", f"messages?{query}", headers=headers))["data"]]

    refunds = [one for one, name, _ in said if name == "refund"]
    assert await ids("intent=refund") == refunds
    assert await ids("intent=refund&order=desc") == refunds[::-1]
    assert await ids(f"intent=refund&after={refunds[0]}&limit=1") == refunds[1:2]
    assert await ids("intent=refund&min_confidence=0.6") == [refunds[0], refunds[2]]
    assert await ids("max_confidence=0.4") == [said[1][0], said[2][0]]
    assert await ids("") == [one for one, _, _ in said]
    assert await ids("intent=nothing") == []
    assert await ids("", brain.other) == []
    await brain.call("DELETE", f"messages/{refunds[1]}")
    assert await ids("intent=refund&limit=2") == [refunds[0], refunds[2]]
    message = (await brain.call("GET", "messages?intent=parcel"))["data"][0]
    assert (message["role"], message["intent"]["name"]) == ("user", "parcel")
    await brain.call("GET", "messages?min_confidence=0.9&max_confidence=0.1", status=422)
    await brain.call("GET", "messages?min_confidence=2", status=422)
    await brain.call("GET", f"messages?after={new_id('msg')}", status=404)


async def test_common_intents_are_counted_in_a_period(brain: Brain, said: list[tuple[str, str, float]]) -> None:
    found = await brain.call("GET", "intents/common")
    assert [(one["name"], one["count"], one["share"]) for one in found["data"]] == [
        ("refund", 3, 0.75),
        ("parcel", 1, 0.25),
    ]
    assert found["total"] == 4 and found["data"][0]["mean_confidence"] == pytest.approx(0.6)
    assert len((await brain.call("GET", "intents/common?limit=1"))["data"]) == 1
    past = await brain.call("GET", "intents/common?from=2020-01-01T00:00:00Z&to=2020-02-01T00:00:00Z")
    assert past["data"] == [] and past["total"] == 0
    await brain.call("GET", "intents/common?from=2020-02-01T00:00:00Z&to=2020-01-01T00:00:00Z", status=422)


async def test_a_messages_analysis_is_the_stored_one_or_made_now(
    brain: Brain, said: list[tuple[str, str, float]], database_url: str
) -> None:
    message = said[0][0]
    now = await brain.call("GET", f"messages/{message}/analysis")
    assert now["stored"] is False and now["message_id"] == message and now["ranked"]
    kept = {
        "intent": {"name": "refund", "confidence": 0.9, "parameters": {"order": "A1"}},
        "ranked": [{"name": "refund", "confidence": 0.9}],
        "out_of_scope": False,
        "out_of_scope_score": 0.1,
        "entities": [{"slot": "order", "value": "A1", "text": "a1", "start": 3, "end": 5}],
        "clarification": None,
        "complexity": 0.2,
        "version": 7,
    }
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE brain.turns SET trace = jsonb_build_object('understanding', %s::jsonb) WHERE id ="
            " (SELECT turn_id FROM brain.messages WHERE id = %s)",
            (psycopg.types.json.Jsonb(kept), message),
        )
    found = await brain.call("GET", f"messages/{message}/analysis")
    assert found == {"object": "message.analysis", "message_id": message, "stored": True, **kept}
    await brain.call("GET", f"messages/{message}/analysis", headers=brain.other, status=404)
    await brain.call("GET", "messages/msg_x/analysis", status=404)


async def test_all_of_it_stands_in_the_document(brain: Brain) -> None:
    described = (await brain.world.http.get("/openapi.json")).json()
    for path, methods in {
        "/intents": {"get", "post"},
        "/intents/{intent_id}": {"get", "put", "delete"},
        "/intents/classify": {"post"},
        "/intents/train": {"post"},
        "/intents/training/{training_id}": {"get"},
        "/intents/evaluate": {"post"},
        "/intents/rollback": {"post"},
        "/intents/versions": {"get"},
        "/intents/common": {"get"},
        "/messages": {"get"},
        "/messages/{message_id}/analysis": {"get"},
    }.items():
        assert set(described["paths"][f"/api/v1{path}"]) == methods, path
    assert {"IntentTrain", "IntentPut", "IntentClassify", "Training", "Classified"} <= set(
        described["components"]["schemas"]
    )


async def test_without_a_place_for_intents_they_cannot_be_defined(brain: Brain) -> None:
    brain.world.parts.intents = None
    answer: httpx.Response = await brain.world.http.post("/api/v1/intents", json={"name": "a"})
    assert answer.status_code == 503
