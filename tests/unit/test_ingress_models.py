"""Models as callers and operators see them: what is allowed, what is registered, what was used."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from domain.errors import Unavailable
from domain.generation import Attempt, Outcome
from domain.ids import new_id
from domain.model import Catalog, parse_catalog
from serve_app.catalog_watch import CatalogWatch
from serve_app.ingress import model_test
from serve_app.ingress.parts import IngressSettings
from storage.access import key_hash
from storage.catalog import CachedSettings, PostgresCatalog
from tests.unit.ingress_world import CATALOG, USAGE, World, world

URL = "http://127.0.0.1:9/v1"


@dataclass
class Models:
    """The world with its registry, and the keys of another tenant's administrator and member."""

    world: World
    watch: CatalogWatch
    settings: CachedSettings
    tenant: str
    admin: dict[str, str]
    member: dict[str, str]

    @property
    def http(self) -> httpx.AsyncClient:
        return self.world.http

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return await self.http.get(f"/api/v1/{path}", **more)

    async def put(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return await self.http.put(f"/api/v1/{path}", json=body, **more)

    async def put_ok(self, path: str, body: Any = None, **more: Any) -> Any:
        answer = await self.put(path, body, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def delete(self, path: str, **more: Any) -> httpx.Response:
        return await self.http.delete(f"/api/v1/{path}", **more)

    async def ids(self, headers: Any = None) -> list[str]:
        return [one["id"] for one in (await self.get("models", headers=headers)).json()["data"]]


def make_key(url: str, tenant: str, role: str) -> dict[str, str]:
    key = new_id("req")
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, 'o') ON CONFLICT DO NOTHING", (tenant,))
        connection.execute(
            "INSERT INTO brain.api_keys (tenant_id, id, name, hash, role) VALUES (%s, %s, 'k', %s, %s)",
            (tenant, new_id("key"), key_hash(key), role),
        )
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
async def brain(database_url: str, tenant: str) -> AsyncIterator[Models]:
    async with world(database_url, tenant, IngressSettings(poll=0.01)) as made:
        store = PostgresCatalog(made.pool)

        async def use(catalog: Catalog) -> None:
            made.parts.catalog = catalog

        settings = CachedSettings(store.settings)
        watch = CatalogWatch(store, use, settings, every=0.05)
        made.parts.models, made.parts.registry = settings, watch
        await watch.configure(CATALOG)
        other = new_id("ten")
        admin, member = make_key(database_url, other, "admin"), make_key(database_url, other, "member")
        yield Models(made, watch, settings, other, admin, member)
        await watch.close()
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM brain.providers")
        connection.execute("DELETE FROM brain.model_settings")


def error_of(answer: httpx.Response) -> tuple[int, Any, Any]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


# What callers see.


async def test_a_card_tells_what_callers_need_and_never_where_the_model_is_called(brain: Models) -> None:
    soon = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    prices = [
        {"from": "2020-01-01T00:00:00Z", "price_in": 3, "price_out": 4, "price_cached": 1},
        {"from": soon, "price_in": 9, "price_out": 9},
    ]
    model = {"id": "dated", "prices": prices, "api": "responses", "max_output_tokens": 77, "quality": 0.5}
    provider = {"base_url": URL, "key": "${DATED_KEY}", "models": [model]}
    await brain.put_ok("admin/models/providers/dated", provider)
    answer = await brain.get("models/dated")
    card = answer.json()
    assert (card["price_in"], card["price_out"], card["price_cached"]) == (3, 4, 1)
    assert card["prices_from"] == "2020-01-01T00:00:00Z"
    assert [one["price_in"] for one in card["prices"]] == [3, 9]
    assert (card["kind"], card["api"], card["max_output_tokens"], card["healthy"]) == ("openai", "responses", 77, True)
    assert "127.0.0.1" not in answer.text
    assert "DATED_KEY" not in answer.text
    assert (await brain.get("models/small")).json()["prices_from"] is None


async def test_a_failing_model_is_told(brain: Models) -> None:
    class OneIsDown:
        def unhealthy(self) -> frozenset[str]:
            return frozenset({"acme/small"})

    brain.world.parts.health = OneIsDown()
    healthy = {one["id"]: one["healthy"] for one in (await brain.get("models")).json()["data"]}
    assert healthy == {"small": False, "org/large": True, "scripted": True}


async def test_a_tenant_sees_and_names_only_what_it_may_use(brain: Models) -> None:
    await brain.put_ok(f"tenants/{brain.tenant}/model-settings", {"allowed": ["org/*", "gpt-4*"]})
    assert await brain.ids(brain.member) == ["org/large"]
    assert (await brain.get("models/gpt-4o", headers=brain.member)).status_code == 200
    for refused in ("small", "gpt-5", "nope", "scripted"):
        answer = await brain.get(f"models/{refused}", headers=brain.member)
        assert error_of(answer) == (404, "model_not_found", "model")
    assert "small" in await brain.ids(), "others are not touched"


async def test_settings_that_cannot_be_known_are_503(brain: Models) -> None:
    class Away:
        async def settings(self, tenant: str) -> Any:
            raise Unavailable("the database is away")

    brain.world.parts.models = Away()
    assert (await brain.get("models")).status_code == 503
    assert (await brain.get("models/small")).status_code == 503


# A tenant's settings.


async def test_members_read_administrators_write_and_other_tenants_do_not_exist(brain: Models, tenant: str) -> None:
    path = f"tenants/{brain.tenant}/model-settings"
    found = await brain.put_ok(path, {"default": "small", "fallback": ["scripted"]}, headers=brain.admin)
    assert found["object"] == "model_settings"
    assert found["tenant_id"] == brain.tenant
    assert (await brain.get(path, headers=brain.member)).json() == found
    assert (await brain.get(path)).json() == found, "the operator reads those of any tenant"
    assert (await brain.put(path, found, headers=brain.admin)).json() == found, "what GET gives can be sent back"
    assert error_of(await brain.put(path, {}, headers=brain.member))[0] == 403
    for unknown in (tenant, new_id("ten"), "ten_1", "x"):
        for headers, write in ((brain.admin, 404), (brain.member, 403)):
            assert (await brain.get(f"tenants/{unknown}/model-settings", headers=headers)).status_code == 404
            assert (await brain.put(f"tenants/{unknown}/model-settings", {}, headers=headers)).status_code == write
    for unknown in (new_id("ten"), "ten_1", "x"):
        assert (await brain.put(f"tenants/{unknown}/model-settings", {})).status_code == 404


async def test_weight_and_budget_are_the_operators(brain: Models) -> None:
    path = f"tenants/{brain.tenant}/model-settings"
    for name, value in (("weight", 5), ("budget", {"hard_usd": 1})):
        assert error_of(await brain.put(path, {name: value}, headers=brain.admin)) == (403, "forbidden", name)
    await brain.put_ok(path, {"weight": 5, "budget": {"hard_usd": 1}, "default": "small"})
    found = await brain.put_ok(path, {"default": "org/large"}, headers=brain.admin)
    assert (found["weight"], found["budget"]["hard_usd"], found["default"]) == (5, 1, "org/large")
    assert error_of(await brain.put(path, {"budget": None}, headers=brain.admin))[2] == "budget"
    assert (await brain.put_ok(path, {}))["budget"] is None, "the operator replaces all of them"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"allowed": ["small", "nope"]}, "allowed.1"),
        ({"default": "nope"}, "default"),
        ({"default": "small", "allowed": ["org/*"]}, "default"),
        ({"fallback": ["small", "nope"]}, "fallback.1"),
        ({"fallback": ["small"], "allowed": ["org/*"]}, "fallback.0"),
        ({"fallback": ["auto"]}, "fallback.0"),
        ({"preferences": {"nope": 0.5}}, "preferences.nope"),
        ({"preferences": {"small": 2}}, None),
        ({"judge": "nope"}, "judge"),
        ({"shadow": {"model": "nope", "share": 0.1}}, "shadow.model"),
        ({"shadow": {"model": "small", "share": 2}}, "shadow.share"),
        ({"cost_quality": "high"}, "cost_quality"),
        ({"colour": "red"}, "colour"),
        ({"tenant_id": "ten_1"}, "tenant_id"),
    ],
)
async def test_wrong_settings_are_422_and_named(brain: Models, body: Any, param: str | None) -> None:
    answer = await brain.put(f"tenants/{brain.tenant}/model-settings", body, headers=brain.admin)
    assert error_of(answer) == (422, "invalid_request", param)


async def test_a_preference_is_set_changed_and_removed(brain: Models) -> None:
    path = "models/org/large/preferences"
    assert await brain.put_ok(path, {"weight": 0.5}, headers=brain.admin) == {
        "object": "model.preference",
        "model": "org/large",
        "weight": 0.5,
    }
    await brain.put_ok("models/small/preferences", {"weight": -1}, headers=brain.admin)
    assert (await brain.get("models/org/large", headers=brain.member)).json()["preference"] == 0.5
    assert (await brain.get("models/org/large")).json()["preference"] is None
    settings = (await brain.get(f"tenants/{brain.tenant}/model-settings", headers=brain.member)).json()
    assert settings["preferences"] == {"org/large": 0.5, "small": -1}
    await brain.put_ok(path, {"weight": None}, headers=brain.admin)
    answer = await brain.http.put("/api/v1/models/small/preferences", content=b"null", headers=brain.admin)
    assert answer.json()["weight"] is None
    settings = (await brain.get(f"tenants/{brain.tenant}/model-settings", headers=brain.member)).json()
    assert settings["preferences"] == {}
    assert error_of(await brain.put(path, {"weight": 1.5}, headers=brain.admin)) == (422, "invalid_request", "weight")
    assert error_of(await brain.put(path, {}, headers=brain.admin))[2] == "weight"
    assert error_of(await brain.put(path, {"weight": 1}, headers=brain.member))[0] == 403
    assert error_of(await brain.put("models/nope/preferences", {"weight": 1}))[1] == "model_not_found"
    assert error_of(await brain.put("models/nope/preferences", {"weight": None}))[1] == "model_not_found"


# The operator's registry.


async def test_only_the_operator_reaches_the_registry(brain: Models) -> None:
    for headers, status in ((brain.admin, 403), (brain.member, 403), ({"authorization": "Bearer no"}, 401)):
        for method, path in (
            ("GET", ""),
            ("GET", "/providers/acme"),
            ("PUT", "/providers/acme"),
            ("DELETE", "/providers/acme"),
            ("GET", "/acme/small"),
            ("PUT", "/acme/small"),
            ("DELETE", "/acme/small"),
        ):
            answer = await brain.http.request(method, f"/api/v1/admin/models{path}", headers=headers)
            assert answer.status_code == status, (method, path)


async def test_a_provider_is_registered_replaced_and_removed(brain: Models) -> None:
    body = {"base_url": URL, "key": "${NEW_KEY}", "models": [{"id": "n1", "price_in": 1, "price_out": 2}]}
    answer = await brain.put("admin/models/providers/new", body)
    assert answer.status_code == 200
    found = answer.json()
    assert (found["name"], found["origin"], found["key"]) == ("new", "database", "${NEW_KEY}")
    assert answer.headers["etag"] == f'"{found["version"]}"'
    assert "n1" in await brain.ids()
    again = await brain.put("admin/models/providers/new", body)
    assert again.json() == found, "the same once more changes nothing"
    replaced = await brain.put_ok("admin/models/providers/new", {**body, "models": [{"id": "n2"}]})
    assert replaced["version"] > found["version"]
    assert "n1" not in await brain.ids()
    assert (await brain.put_ok("admin/models/providers/new", replaced))["version"] == replaced["version"]
    deleted = await brain.delete("admin/models/providers/new")
    assert deleted.json() == {"id": "new", "object": "provider", "deleted": True}
    assert "n2" not in await brain.ids()
    assert (await brain.delete("admin/models/providers/new")).status_code == 404
    assert (await brain.get("admin/models/providers/new")).status_code == 404


async def test_the_name_of_a_hidden_provider_is_free_once_the_configuration_drops_it(brain: Models) -> None:
    await brain.delete("admin/models/providers/acme")
    await brain.watch.configure(parse_catalog({"providers": []}))
    (hidden,) = [one for one in (await brain.get("admin/models")).json()["data"] if one["name"] == "acme"]
    assert hidden["removed"] and hidden["models"] == []
    assert (await brain.delete("admin/models/providers/acme")).status_code == 404
    await brain.put_ok("admin/models/providers/acme", {"base_url": URL, "models": [{"id": "mine"}]})
    assert await brain.ids() == ["mine", "scripted"]


async def test_a_model_is_added_changed_and_removed_in_a_provider(brain: Models) -> None:
    path = "admin/models/acme/org/extra"
    found = await brain.put_ok(path, {"price_in": 1, "price_out": 2, "quality": 0.9})
    assert (found["id"], found["provider"], found["origin"]) == ("org/extra", "acme", "database")
    assert await brain.ids() == ["small", "org/large", "org/extra", "scripted"]
    assert (await brain.get(path)).json() == found
    await brain.put_ok("admin/models/acme/small", {"price_in": 7, "price_out": 8})
    assert (await brain.get("models/small")).json()["price_in"] == 7
    assert await brain.ids() == ["small", "org/large", "org/extra", "scripted"], "its place stays"
    assert (await brain.delete(path)).json() == {"id": "org/extra", "object": "model", "deleted": True}
    assert (await brain.get(path)).status_code == (await brain.delete(path)).status_code == 404
    for wrong in ("admin/models/nobody/x", "admin/models/providers/x/y"):
        assert (await brain.put(wrong, {})).status_code == 404
    assert error_of(await brain.put("admin/models/acme/x", {"id": "y"}))[2] == "id"
    assert error_of(await brain.put("admin/models/acme/x", {"price_in": -1}))[2] == "price_in"
    assert error_of(await brain.put("admin/models/acme/auto", {}))[0] == 422


async def test_a_configured_provider_is_overridden_hidden_and_comes_back(brain: Models) -> None:
    await brain.put_ok("admin/models/providers/acme", {"base_url": URL, "models": [{"id": "mine"}]})
    assert await brain.ids() == ["mine", "scripted"]
    assert (await brain.delete("admin/models/providers/acme")).json()["deleted"]
    assert await brain.ids() == ["scripted"]
    listed = {one["name"]: one for one in (await brain.get("admin/models")).json()["data"]}
    assert (listed["acme"]["removed"], listed["scripted"]["removed"]) == (True, False)
    assert (await brain.delete("admin/models/providers/acme")).status_code == 404
    reset = await brain.delete("admin/models/providers/acme", params={"reset": "true"})
    assert reset.json()["deleted"] is False
    assert await brain.ids() == ["small", "org/large", "scripted"]
    assert (await brain.delete("admin/models/providers/acme", params={"reset": "true"})).status_code == 404
    assert error_of(await brain.delete("admin/models/providers/scripted"))[0] == 422


async def test_a_change_can_be_bound_to_what_its_author_saw(brain: Models) -> None:
    path = "admin/models/providers/new"
    missing = await brain.put(path, {"base_url": URL}, headers={"if-match": '"5"'})
    assert error_of(missing)[:2] == (412, "precondition_failed")
    seen = (await brain.put(path, {"base_url": URL})).headers["etag"]
    now = (await brain.put(path, {"base_url": URL, "retries": 1}, headers={"if-match": seen})).headers["etag"]
    assert now != seen
    for headers in ({"if-match": seen}, {"if-match": '"1"'}):
        assert (await brain.put(path, {"base_url": URL, "retries": 3}, headers=headers)).status_code == 412
        assert (await brain.delete(path, headers=headers)).status_code == 412
    assert (await brain.get(path)).json()["retries"] == 1
    assert (await brain.delete(path, headers={"if-match": f"{seen}, {now}"})).status_code == 200


async def test_changes_of_several_models_at_once_are_all_kept(brain: Models) -> None:
    answers = await asyncio.gather(*(brain.put(f"admin/models/acme/at-once-{n}", {}) for n in range(4)))
    assert {one.status_code for one in answers} == {200}
    assert {f"at-once-{n}" for n in range(4)} <= set(await brain.ids())


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"base_url": URL, "key": "sk-literal-secret"}, "invalid_request", "key"),
        ({"base_url": URL, "key": "${BRAIN_REDIS_URL}"}, "invalid_request", "key"),
        ({"base_url": "file:///etc/passwd"}, "invalid_request", "base_url"),
        ({"base_url": "http://a:b@host/v1"}, "invalid_request", "base_url"),
        ({}, "invalid_request", "base_url"),
        ({"base_url": URL, "models": [{"id": "small"}]}, "invalid_request", "models"),
        ({"base_url": URL, "colour": "red"}, "invalid_request", "colour"),
        ({"base_url": URL, "name": "other"}, "invalid_request", "name"),
        ({"base_url": "http://x/\0"}, "invalid_request", "base_url"),
        ({"kind": "vllm", "models": [{"id": "l", "vllm": {"source": "/m"}}]}, "needs_deploy", "models.0"),
    ],
)
async def test_what_cannot_be_registered_is_422_and_named(brain: Models, body: Any, code: str, param: str) -> None:
    answer = await brain.put("admin/models/providers/new", body)
    assert error_of(answer) == (422, code, param)
    assert "sk-literal" not in answer.text
    assert (await brain.get("admin/models/providers/new")).status_code == 404


async def test_the_operators_list_shows_places_of_keys_and_no_secrets(
    brain: Models, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setenv("SHOWN_KEY", "the-secret-itself")
    configured = {"name": "c", "base_url": "http://me:hidden@10.0.0.1/v1", "models": [{"id": "c1"}]}
    await brain.watch.configure(parse_catalog({"providers": [configured]}))
    await brain.put_ok("admin/models/providers/k", {"base_url": URL, "key": "${SHOWN_KEY}"})
    await brain.put_ok("admin/models/providers/f", {"base_url": URL, "key_file": "/run/secrets/f"})
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO brain.providers (name, entry, version) VALUES ('bad', '{\"x\": 1}', 0)")
    answer = await brain.get("admin/models")
    listed = {one["name"]: one for one in answer.json()["data"]}
    assert list(listed) == ["c", "f", "k", "scripted", "bad"]
    assert (listed["k"]["key"], listed["f"]["key_file"]) == ("${SHOWN_KEY}", "/run/secrets/f")
    assert listed["c"]["base_url"] == "http://10.0.0.1/v1"
    assert "x" in listed["bad"]["problem"]
    assert "hidden" not in answer.text
    assert "the-secret-itself" not in answer.text
    assert (await brain.delete("admin/models/providers/bad")).status_code == 200, "what is left out can be taken back"


async def test_changes_are_logged_with_who_made_them(brain: Models, capfd: pytest.CaptureFixture[str]) -> None:
    await brain.put_ok("admin/models/acme/logged", {})
    logged = [line for line in capfd.readouterr().err.splitlines() if '"audit"' in line]
    assert len(logged) == 1
    assert '"action":"model.put"' in logged[0]
    assert '"caller":"key_' in logged[0]


async def test_another_replica_hears_of_changes_by_itself(brain: Models) -> None:
    seen: list[list[str]] = []
    changed = asyncio.Event()

    async def use(catalog: Catalog) -> None:
        seen.append(catalog.ids())
        changed.set()

    cached = CachedSettings(brain.watch.store.settings)
    watch = CatalogWatch(brain.watch.store, use, cached, every=0.05)
    await watch.configure(CATALOG)
    assert (await cached.settings(brain.tenant)).default is None
    changed.clear()
    await brain.put_ok("admin/models/acme/heard", {})
    async with asyncio.timeout(5):
        await changed.wait()
    assert "heard" in seen[-1]
    await brain.put_ok(f"tenants/{brain.tenant}/model-settings", {"default": "heard"})
    async with asyncio.timeout(5):
        while (await cached.settings(brain.tenant)).default != "heard":
            await asyncio.sleep(0.01)
    await watch.close()


async def test_a_model_that_another_replica_registered_is_found_at_once(brain: Models) -> None:
    slow = CatalogWatch(brain.watch.store, brain.watch._apply, every=3600)
    await slow.configure(CATALOG)
    await brain.watch.store.put("late", {"base_url": URL, "models": [{"id": "late"}]}, 0)
    assert await slow.knows("late")
    assert not await slow.knows("never")
    assert await slow.knows("auto")
    await slow.close()


async def test_without_the_database_the_last_known_catalog_stands(brain: Models) -> None:
    await brain.put_ok("admin/models/acme/kept", {})

    class Away(PostgresCatalog):
        async def versions(self) -> Any:
            raise Unavailable("away")

    brain.watch.store = Away(brain.world.pool)
    changed = CATALOG.model_copy(update={"routing": CATALOG.routing.model_copy(update={"cost_quality": 1.0})})
    await brain.watch.configure(changed)
    assert brain.world.parts.catalog.routing.cost_quality == 1.0
    assert "kept" in brain.world.parts.catalog.ids()


# The test of a model, and its metrics.


async def test_a_test_calls_the_model_and_tells_how_it_went(brain: Models) -> None:
    attempt = Attempt("small", "acme", "ok", None, 0.0, 12.5, 20.0, usage=USAGE, reply=True)
    brain.world.model.outcome = replace(brain.world.model.outcome, attempts=(attempt,))
    answer = await brain.http.post(
        "/api/v1/models/small/test", json={"prompt": "Are you there?", "parameters": {"temperature": 0, "stop": "x"}}
    )
    found = answer.json()
    assert answer.status_code == 200
    assert found["total_ms"] > 0
    assert (
        found.items()
        >= {
            "object": "model.test",
            "ok": True,
            "model": "small",
            "provider": "acme",
            "first_token_ms": 12.5,
            "text": "Hello",
            "cost_usd": 1.1e-06,
            "error": None,
        }.items()
    )
    assert found["usage"]["total_tokens"] == 5
    asked = brain.world.model.asked[0]
    assert asked.messages == [{"role": "user", "content": "Are you there?"}]
    assert asked.parameters == {"temperature": 0, "stop": "x", "max_tokens": 64}
    assert not asked.journal
    assert not asked.kept
    assert asked.tenant == brain.world.tenant


async def test_a_test_without_a_body_is_taken_and_counts_in_the_ledger(brain: Models) -> None:
    brain.world.model.outcome = replace(brain.world.model.outcome, model="org/large")
    answer = await brain.http.post("/api/v1/models/org/large/test", headers=brain.admin)
    assert answer.json()["ok"]
    await brain.world.parts.accounts.close(10)
    metrics = (await brain.get("models/org/large/metrics", headers=brain.member)).json()
    assert metrics["calls"]["charged"] == metrics["calls"]["unkept"] == 1
    assert metrics["usage"]["total_tokens"] == 5
    assert metrics["cost_usd"] is None, "it has no price"
    assert metrics["turns"]["total"] == 0
    assert (await brain.get("models/org/large/metrics")).json()["calls"]["charged"] == 0, "another tenant's"


async def test_a_failed_test_is_an_answer(brain: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    error = {"message": "provider 'acme' answered 401", "type": "provider_error", "code": "provider_error"}
    brain.world.model.outcome = Outcome("failed", error=error)
    found = (await brain.http.post("/api/v1/models/small/test")).json()
    assert (found["ok"], found["text"], found["error"]["message"]) == (False, "", error["message"])
    monkeypatch.setattr(model_test, "LIMIT", 0.05)
    brain.world.model.go = asyncio.Event()
    late = (await brain.http.post("/api/v1/models/small/test")).json()
    assert (late["ok"], late["error"]["code"]) == (False, "provider_timeout")
    await asyncio.wait_for(brain.world.model.heard_cancel.wait(), 5)
    brain.world.model.go.set()


async def test_a_test_is_refused_where_the_budget_could_be_exceeded(brain: Models) -> None:
    await brain.put_ok(f"tenants/{brain.tenant}/model-settings", {"budget": {"hard_usd": 0.0000001}})
    answer = await brain.http.post("/api/v1/models/small/test", headers=brain.admin)
    assert error_of(answer)[:2] == (402, "budget_exceeded")
    assert brain.world.model.asked == []


async def test_members_do_not_test_and_unknown_models_are_404(brain: Models) -> None:
    path = "/api/v1/models/small/test"
    assert (await brain.http.post(path, headers=brain.member)).status_code == 403
    await brain.put_ok(f"tenants/{brain.tenant}/model-settings", {"allowed": ["org/*"]})
    assert error_of(await brain.http.post(path, headers=brain.admin))[1] == "model_not_found"
    assert error_of(await brain.http.post("/api/v1/models/auto/test"))[1] == "model_not_found"
    wrong = await brain.http.post(path, json={"prompt": ""})
    assert error_of(wrong) == (422, "invalid_request", "prompt")


async def test_metrics_count_turns_calls_tokens_and_cost(brain: Models) -> None:
    conversation = await brain.world.conversation()
    before = (await brain.get("models/small/metrics")).json()
    for _ in range(2):
        assert (await brain.world.send(conversation, model="small")).status_code == 200
    brain.world.hosts.script.error = {"message": "broken", "type": "provider_error", "code": "provider_error"}
    assert (await brain.world.send(conversation, model="small")).status_code == 502
    after = (await brain.get("models/small/metrics")).json()
    assert {name: after["turns"][name] - before["turns"][name] for name in after["turns"]} == {
        "completed": 2,
        "failed": 1,
        "cancelled": 0,
        "total": 3,
    }
    assert after["usage"]["total_tokens"] - before["usage"]["total_tokens"] == 3 * USAGE.total_tokens
    assert after["cost_usd"] - (before["cost_usd"] or 0) == pytest.approx(3 * 1.1e-06)
    assert after["latency_ms"]["turn"]["p50"] > 0
    past = {"from": "2020-01-01T00:00:00Z", "to": "2020-02-01"}
    assert (await brain.get("models/small/metrics", params=past)).json()["turns"]["total"] == 0
    assert error_of(await brain.get("models/nope/metrics"))[1] == "model_not_found"
    assert error_of(await brain.get("models/no%00pe"))[1] == "model_not_found"


async def test_metrics_tell_calls_by_status_with_latencies_and_errors(brain: Models, database_url: str) -> None:
    conversation = await brain.world.conversation()
    model = f"gpt-{new_id('req')}"
    attempts = [
        {"model": model, "provider": "acme", "status": "ok", "error": None, "first_token_ms": 10, "total_ms": 100},
        {"model": model, "provider": "acme", "status": "ok", "error": None, "first_token_ms": 30, "total_ms": 300},
        {"model": model, "provider": "acme", "status": "error", "error": "429", "first_token_ms": None, "total_ms": 1},
        {"model": "small", "provider": "acme", "status": "ok", "error": None, "first_token_ms": 1, "total_ms": 1},
    ]
    answer = await brain.world.send(conversation, model="small")
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE brain.turns SET trace = %s WHERE id = %s",
            (psycopg.types.json.Jsonb({"attempts": attempts}), answer.json()["turn"]["id"]),
        )
    found = (await brain.get(f"models/{model}/metrics")).json()
    assert (found["calls"]["ok"], found["calls"]["error"], found["calls"]["total"]) == (2, 1, 3)
    assert found["latency_ms"]["call"]["p50"] == 200
    assert found["latency_ms"]["first_token"] == {"p50": 20, "p95": 29}
    assert found["errors"] == [{"message": "429", "count": 1}]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("from=yesterday", "from"),
        ("from=1700000000", "from"),
        ("from=2026-02-01&to=2026-01-01", "from"),
        ("from=2020-01-01&to=2026-01-01", "from"),
        ("to=9999-12-31T23:59:59Z", "to"),
        ("from=1970-01-01", "from"),
    ],
)
async def test_a_wrong_period_is_422_and_named(brain: Models, query: str, param: str) -> None:
    assert error_of(await brain.get(f"models/small/metrics?{query}")) == (422, "invalid_request", param)


async def test_the_document_describes_the_routes(brain: Models) -> None:
    document = (await brain.http.get("/openapi.json")).json()
    paths, schemas = document["paths"], document["components"]["schemas"]
    for path in (
        "/api/v1/models/{model_id}/test",
        "/api/v1/models/{model_id}/metrics",
        "/api/v1/models/{model_id}/preferences",
        "/api/v1/tenants/{tenant_id}/model-settings",
        "/api/v1/admin/models",
        "/api/v1/admin/models/providers/{name}",
        "/api/v1/admin/models/{provider}/{model_id}",
    ):
        for operation in paths[path].values():
            assert operation["security"] == [{"key": []}]
            assert "$ref" in operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert {"ModelSettingsPut", "ProviderPut", "ModelPut", "ModelTest", "Preference", "RegisteredProvider"} <= set(
        schemas
    )
