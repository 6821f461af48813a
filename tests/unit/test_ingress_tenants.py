"""Tenants through the API: made, read, changed, suspended, deleted; and each one's own."""

from collections.abc import AsyncIterator

import psycopg
import pytest

from domain.ids import new_id
from tests.unit.administration_world import Office, office


@pytest.fixture
async def desk(database_url: str, tenant: str) -> AsyncIterator[Office]:
    async with office(database_url, tenant) as made:
        yield made


async def test_a_tenant_is_made_read_changed_and_listed(desk: Office) -> None:
    made = await desk.call("POST", "admin/tenants", {"name": "acme", "settings": {"retention_days": 30}}, status=201)
    assert made["id"].startswith("ten_") and made["object"] == "tenant" and made["status"] == "active"
    assert made["settings"]["retention_days"] == 30 and made["settings"]["pii_masking"] == "off"
    assert made["model_settings"] == f"/api/v1/tenants/{made['id']}/model-settings"
    path = f"admin/tenants/{made['id']}"
    assert await desk.call("GET", path) == made
    limits = {"requests_per_minute": 60, "per_user": {"concurrent_turns": 2}}
    changed = await desk.call("PATCH", path, {"name": "Acme", "settings": {"limits": limits}})
    assert (changed["name"], changed["settings"]["retention_days"]) == ("Acme", 30), "others stay"
    assert changed["settings"]["limits"]["per_user"]["concurrent_turns"] == 2
    assert changed["updated_at"] > made["updated_at"]
    changed = await desk.call("PATCH", path, {"settings": {"retention_days": None, "limits": None}})
    assert changed["settings"]["retention_days"] is None and changed["settings"]["limits"]["per_user"] == {
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "concurrent_turns": None,
    }
    newest = await desk.call("GET", "admin/tenants?limit=1")
    assert newest["data"] == [changed] and newest["has_more"] and newest["last_id"] == made["id"]
    following = await desk.call("GET", f"admin/tenants?after={made['id']}&limit=100")
    ids = [one["id"] for one in following["data"]]
    assert ids and ids == sorted(ids, reverse=True) and ids[0] < made["id"]


async def test_a_repeated_request_makes_one_tenant(desk: Office) -> None:
    key = {"idempotency-key": new_id("req")}
    first = await desk.ask("POST", "admin/tenants", {"name": "once"}, headers=key)
    again = await desk.ask("POST", "admin/tenants", {"name": "once"}, headers=key)
    assert first.json() == again.json() and again.headers["idempotent-replayed"] == "true"
    other = await desk.call("POST", "admin/tenants", {"name": "twice"}, status=422, headers=key)
    assert other["error"]["code"] == "idempotency_mismatch"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a", "colour": "red"}, "colour"),
        ({"name": "a", "settings": {"colour": "red"}}, "settings.colour"),
        ({"name": "a", "settings": {"operator": True}}, "settings.operator"),
        ({"name": "a", "settings": {"retention_days": 0}}, "settings.retention_days"),
        ({"name": "a", "settings": {"retention_days": "7"}}, "settings.retention_days"),
        ({"name": "a", "settings": {"pii_masking": "maybe"}}, "settings.pii_masking"),
        ({"name": "a", "settings": {"features": {"flying": True}}}, "settings.features.flying.[key]"),
        ({"name": "a", "settings": {"quotas": {"max_keys": -1}}}, "settings.quotas.max_keys"),
        ({"name": "a", "settings": {"limits": {"per_key": {"x": 1}}}}, "settings.limits.per_key.x"),
    ],
)
async def test_a_wrong_field_is_named(desk: Office, body: object, param: str) -> None:
    assert (await desk.refused("POST", "admin/tenants", body, status=422))[1] == param


async def test_all_this_is_the_operators(desk: Office) -> None:
    own, other = await desk.tenant(), await desk.tenant()
    owner = await desk.key(own, "owner")
    for method, path in (
        ("GET", "admin/tenants"),
        ("POST", "admin/tenants"),
        ("GET", f"admin/tenants/{own}"),
        ("PATCH", f"admin/tenants/{own}"),
        ("DELETE", f"admin/tenants/{own}"),
        ("POST", f"admin/tenants/{own}/keys"),
        ("POST", f"admin/tenants/{own}/rotate-keys"),
        ("GET", "admin/stats"),
    ):
        await desk.refused(method, path, {"name": "x"} if method != "GET" else None, owner)
    for unknown in (new_id("ten"), "nonsense"):
        for method in ("GET", "PATCH", "DELETE"):
            await desk.refused(method, f"admin/tenants/{unknown}", {"name": "x"}, status=404)
    await desk.refused("GET", f"tenants/{other}", None, owner, 404)
    await desk.refused("PATCH", f"tenants/{other}", {"name": "mine"}, owner, 404)


async def test_an_administrator_sets_what_is_the_tenants_and_no_more(desk: Office) -> None:
    own = await desk.tenant(quotas={"max_keys": 5})
    admin, member = await desk.key(own, "admin"), await desk.key(own, "member")
    path = f"tenants/{own}"
    changed = await desk.call("PATCH", path, {"settings": {"system_prompt": "Be kind."}}, admin)
    assert changed["settings"]["system_prompt"] == "Be kind." and changed["settings"]["quotas"]["max_keys"] == 5
    sent_back = {"settings": changed["settings"], "name": "Ours"}
    assert (await desk.call("PATCH", path, sent_back, admin))["name"] == "Ours", "what is not changed may be named"
    for settings, name in (
        ({"quotas": {"max_keys": 6}}, "quotas"),
        ({"limits": {"requests_per_minute": 10}}, "limits"),
        ({"features": {"recall": False}}, "features"),
    ):
        assert (await desk.refused("PATCH", path, {"settings": settings}, admin))[1] == f"settings.{name}"
    assert (await desk.refused("PATCH", path, {"status": "suspended"}, admin))[1] == "status"
    await desk.refused("GET", path, None, member)
    await desk.refused("PATCH", path, {}, admin, 422)
    assert (await desk.call("GET", path, None, admin))["settings"]["quotas"]["max_keys"] == 5


async def test_a_suspended_tenants_keys_open_nothing_until_it_is_resumed(desk: Office) -> None:
    own = await desk.tenant()
    admin = await desk.key(own, "admin")
    await desk.call("GET", "conversations", None, admin)
    await desk.call("PATCH", f"admin/tenants/{own}", {"status": "suspended"})
    await desk.refused("GET", "conversations", None, admin, 401)
    assert own in str(await desk.call("GET", "admin/tenants?status=suspended&limit=100"))
    assert own not in str(await desk.call("GET", "admin/tenants?status=active&limit=100"))
    await desk.call("PATCH", f"admin/tenants/{own}", {"status": "active"})
    desk.world.parts.callers.forget(None)  # that a key is unknown is believed for two seconds
    await desk.call("GET", "conversations", None, admin)


async def test_the_operators_own_tenant_is_neither_suspended_nor_deleted(desk: Office) -> None:
    own = f"admin/tenants/{desk.world.tenant}"
    await desk.refused("PATCH", own, {"status": "suspended"}, status=422)
    await desk.refused("DELETE", own, status=422)
    assert (await desk.call("PATCH", own, {"settings": {"retention_days": None}}))["status"] == "active"
    assert await desk.call("GET", "admin/tenants"), "the operator's key still opens everything"


async def test_a_deleted_tenant_leaves_its_audit_log_and_the_event_of_its_end(desk: Office, database_url: str) -> None:
    own = await desk.tenant("gone")
    member = await desk.key(own, "member")
    made = await desk.call("POST", "conversations", {}, member, 201)
    sent = await desk.call("POST", f"conversations/{made['id']}/messages", {"content": "hi"}, member)
    assert sent["turn"]["status"] == "completed"
    deleted = await desk.call("DELETE", f"admin/tenants/{own}")
    assert deleted == {"id": own, "object": "tenant", "deleted": True}
    await desk.refused("GET", "conversations", None, member, 401)
    await desk.refused("GET", f"admin/tenants/{own}", status=404)
    log = await desk.call("GET", f"admin/audit?tenant_id={own}")
    assert [one["action"] for one in log["data"]] == ["tenant.delete", "key.create", "tenant.create"]
    assert log["data"][0]["actor"]["role"] == "operator" and log["data"][0]["detail"] == {"name": "gone"}
    with psycopg.connect(database_url) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.columns WHERE table_schema = 'brain' AND column_name ="
            " 'tenant_id' AND table_name NOT IN ('audit', 'access_changes', 'outbox')"
        ).fetchall()
        for (table,) in tables:
            found = connection.execute(f"SELECT count(*) FROM brain.{table} WHERE tenant_id = %s", [own]).fetchone()
            assert found == (0,), table
        told = connection.execute("SELECT topic FROM brain.outbox WHERE tenant_id = %s", [own]).fetchall()
    assert told == [("tenant.deleted",)]


async def test_settings_count_at_once(desk: Office) -> None:
    own = await desk.tenant(quotas={"max_conversations": 1})
    member = await desk.key(own, "member")
    await desk.call("POST", "conversations", {}, member, 201)
    assert (await desk.refused("POST", "conversations", {}, member, 409))[0] == "quota_exceeded"
    await desk.call("PATCH", f"admin/tenants/{own}", {"settings": {"quotas": {"max_conversations": 2}}})
    await desk.call("POST", "conversations", {}, member, 201)
    asked = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
    answer = await desk.world.http.post("/v1/chat/completions", json=asked, headers=member)
    assert answer.status_code == 200
    features = {"completions": False, "embeddings": False}
    await desk.call("PATCH", f"admin/tenants/{own}", {"settings": {"features": features}})
    for path, body in (("chat/completions", asked), ("embeddings", {"model": "auto", "input": "hi"})):
        answer = await desk.world.http.post(f"/v1/{path}", json=body, headers=member)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "feature_off")


async def test_the_audit_log_is_the_tenants_and_is_searched(desk: Office) -> None:
    own, other = await desk.tenant(), await desk.tenant()
    admin, member = await desk.key(own, "admin"), await desk.key(own, "member")
    await desk.call("PATCH", f"tenants/{own}", {"settings": {"system_prompt": "x"}}, admin)
    log = await desk.call("GET", "admin/audit", None, admin)
    assert {one["tenant_id"] for one in log["data"]} == {own}
    assert log["data"][0]["action"] == "tenant.change" and log["data"][0]["actor"]["role"] == "admin"
    assert log["data"][0]["detail"] == {"settings": {"system_prompt": "x"}}
    found = await desk.call("GET", "admin/audit?action=key.create&order=asc", None, admin)
    assert [one["detail"]["role"] for one in found["data"]] == ["admin", "member"]
    subject = found["data"][0]["subject"]
    assert len((await desk.call("GET", f"admin/audit?subject={subject}", None, admin))["data"]) == 1
    at = found["data"][1]["at"].replace("+", "%2B")
    later = await desk.call("GET", f"admin/audit?since={at}", None, admin)
    earlier = await desk.call("GET", f"admin/audit?until={at}", None, admin)
    assert len(later["data"]) + len(earlier["data"]) == len(log["data"]) == 4
    page = await desk.call("GET", "admin/audit?limit=3", None, admin)
    rest = await desk.call("GET", f"admin/audit?after={page['last_id']}", None, admin)
    assert page["has_more"] and [one["action"] for one in rest["data"]] == ["tenant.create"]
    await desk.refused("GET", "admin/audit", None, member)
    await desk.refused("GET", f"admin/audit?tenant_id={other}", None, admin, 404)
    assert (await desk.call("GET", f"admin/audit?tenant_id={other}"))["data"][0]["subject"] == other


async def test_figures_of_the_service_are_counted(desk: Office) -> None:
    before = await desk.call("GET", "admin/stats")
    own = await desk.tenant()
    member = await desk.key(own, "member")
    made = await desk.call("POST", "conversations", {}, member, 201)
    await desk.call("POST", f"conversations/{made['id']}/messages", {"content": "hi"}, member)
    after = await desk.call("GET", "admin/stats")
    assert after["tenants"]["active"] == before["tenants"].get("active", 0) + 1
    for name, more in (("api_keys", 1), ("conversations", 1), ("messages", 2), ("turns", 1)):
        assert after[name]["exact"] and after[name]["count"] == before[name]["count"] + more, name
    done = (figures["turns"]["by_status"].get("completed", 0) for figures in (after, before))
    assert next(done) == next(done) + 1 and after["outbox"] > 0 and after["object"] == "stats"
