"""Roles through the API: those that every tenant has, and its own."""

from collections.abc import AsyncIterator

import pytest

from domain.ids import new_id
from domain.permissions import GIVEN, ROLES, Permission
from tests.unit.administration_world import Office, bearer, office


@pytest.fixture
async def desk(database_url: str, tenant: str) -> AsyncIterator[Office]:
    async with office(database_url, tenant) as made:
        yield made


async def test_a_role_is_defined_read_changed_and_removed(desk: Office) -> None:
    own, other = await desk.tenant(), await desk.tenant()
    admin, others = await desk.key(own, "admin"), await desk.key(other, "admin")
    body = {"name": "reader", "description": "reads", "permissions": ["models:read", "conversations:read"]}
    made = await desk.call("POST", "roles", body, admin, 201)
    assert (made["object"], made["name"], made["built_in"]) == ("role", "reader", False)
    assert made["permissions"] == ["conversations:read", "models:read"]
    assert await desk.call("GET", "roles/reader", None, admin) == made
    await desk.refused("GET", "roles/reader", None, others, 404)
    assert "reader" not in str(await desk.call("GET", "roles", None, others))
    changed = await desk.call("PUT", "roles/reader", {"permissions": ["models:read"]}, admin)
    assert changed["permissions"] == ["models:read"] and changed["description"] == ""
    for method in ("PUT", "DELETE"):
        await desk.refused(method, "roles/reader", {"permissions": []}, others, 404)
    assert (await desk.call("DELETE", "roles/reader", None, admin))["deleted"]
    await desk.refused("GET", "roles/reader", None, admin, 404)


async def test_the_roles_of_every_tenant_are_listed_and_nobody_changes_them(desk: Office) -> None:
    own = await desk.tenant()
    admin = await desk.key(own, "admin")
    listed = await desk.call("GET", "roles", None, admin)
    assert [one["name"] for one in listed["data"]] == sorted(GIVEN) and all(one["built_in"] for one in listed["data"])
    member = await desk.call("GET", "roles/member", None, admin)
    assert member["permissions"] == sorted(ROLES["member"])
    for name in GIVEN:
        for method in ("PUT", "DELETE"):
            assert (await desk.refused(method, f"roles/{name}", {"permissions": []}, admin, 409))[0] == "built_in"
    for name in (*GIVEN, "operator"):
        body = {"name": name, "permissions": []}
        assert (await desk.refused("POST", "roles", body, admin, 409))[0] == "name_taken"
    await desk.refused("GET", "roles/operator", None, admin, 404)


async def test_roles_come_in_pages_in_the_order_of_their_names(desk: Office) -> None:
    own = await desk.tenant()
    admin = await desk.key(own, "admin")
    await desk.call("POST", "roles", {"name": "bot", "permissions": []}, admin, 201)
    page = await desk.call("GET", "roles?limit=3", None, admin)
    assert [one["name"] for one in page["data"]] == ["admin", "agent", "bot"] and page["has_more"]
    rest = await desk.call("GET", f"roles?after={page['last_id']}", None, admin)
    assert [one["name"] for one in rest["data"]] == ["member", "owner", "read-only", "service"]
    back = await desk.call("GET", "roles?order=desc&after=agent", None, admin)
    assert [one["name"] for one in back["data"]] == ["admin"] and not back["has_more"]


async def test_a_role_gives_no_permission_that_its_maker_lacks(desk: Office) -> None:
    own = await desk.tenant()
    admin, owner = await desk.key(own, "admin"), await desk.key(own, "owner")
    body = {"name": "eraser", "permissions": ["data:erase"]}
    assert (await desk.refused("POST", "roles", body, admin))[0] == "wider_than_own"
    await desk.call("POST", "roles", body, owner, 201)
    assert (await desk.refused("PUT", "roles/eraser", {"permissions": ["data:erase"]}, admin))[0] == "wider_than_own"
    assert (await desk.refused("POST", "keys", {"name": "k", "role": "eraser"}, admin))[0] == "wider_than_own"
    narrow = await desk.key(own, "admin", scopes=["roles:manage"])
    body = {"name": "reader", "permissions": ["models:read"]}
    assert (await desk.refused("POST", "roles", body, narrow))[0] == "wider_than_own"
    for name in ("platform:tenants", "fly"):
        body = {"name": "x", "permissions": [name]}
        assert (await desk.refused("POST", "roles", body, owner, 422))[0] == "unknown_permission"
    member = await desk.key(own, "member")
    await desk.refused("POST", "roles", {"name": "x", "permissions": []}, member)
    await desk.refused("GET", "roles", None, member)


async def test_what_a_role_loses_its_keys_lose_at_once(desk: Office) -> None:
    own = await desk.tenant()
    admin = await desk.key(own, "admin")
    await desk.call("POST", "roles", {"name": "reader", "permissions": ["models:read"]}, admin, 201)
    key = bearer((await desk.call("POST", "keys", {"name": "k", "role": "reader"}, admin, 201))["key"])
    await desk.call("GET", "models", None, key)
    await desk.call("PUT", "roles/reader", {"permissions": ["intents:read"]}, admin)
    await desk.refused("GET", "models", None, key)


async def test_a_role_that_somebody_has_is_not_removed(desk: Office) -> None:
    own = await desk.tenant()
    admin = await desk.key(own, "admin")
    await desk.call("POST", "roles", {"name": "reader", "permissions": ["models:read"]}, admin, 201)
    made = await desk.call("POST", "keys", {"name": "k", "role": "reader"}, admin, 201)
    assert (await desk.refused("DELETE", "roles/reader", None, admin, 409))[0] == "role_in_use"
    await desk.call("DELETE", f"keys/{made['id']}", None, admin)
    await desk.call("DELETE", "roles/reader", None, admin)


@pytest.mark.parametrize("name", ["", "Reader", "1", "a" * 64, "a b"])
async def test_a_name_that_is_none_is_refused(desk: Office, name: str) -> None:
    assert (await desk.refused("POST", "roles", {"name": name, "permissions": []}, status=422))[1] == "name"


async def test_a_repeated_request_makes_one_role(desk: Office) -> None:
    own = await desk.tenant()
    admin = await desk.key(own, "admin")
    key, body = {"idempotency-key": new_id("req")}, {"name": "once", "permissions": []}
    first = await desk.ask("POST", "roles", body, admin, headers=key)
    again = await desk.ask("POST", "roles", body, admin, headers=key)
    assert first.json() == again.json() and again.headers["idempotent-replayed"] == "true"
    assert (await desk.refused("POST", "roles", body, admin, 409))[0] == "name_taken"


async def test_all_permissions_are_listed(desk: Office) -> None:
    listed = await desk.call("GET", "permissions")
    assert [one["name"] for one in listed["data"]] == sorted(Permission)
    assert {one["name"] for one in listed["data"] if one["operators_own"]} == {
        one for one in Permission if one.beyond_tenant
    }
    page = await desk.call("GET", "permissions?limit=2&order=desc")
    assert page["has_more"] and page["first_id"] == max(Permission)
