"""API keys through the API: made, listed, ended and rotated, and never wider than whoever made them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Unavailable
from domain.granting import Wider, check_given, check_key
from domain.ids import new_id
from domain.permissions import GIVEN, ROLES, Permission, permissions_of
from domain.tenant import Caller
from serve_app.ingress.keys_used import KeysUsed
from tests.unit.administration_world import Office, bearer, office

permissions = st.frozensets(st.sampled_from(list(Permission)))
scopes = st.none() | st.lists(st.sampled_from([one.value for one in Permission]), unique=True)
users = st.none() | st.sampled_from(["usr_a", "usr_b"])


@pytest.fixture
async def desk(database_url: str, tenant: str) -> AsyncIterator[Office]:
    async with office(database_url, tenant) as made:
        yield made


def make_user(url: str, tenant: str) -> str:
    user = new_id("usr")
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO brain.users (tenant_id, id, email, email_key) VALUES (%s, %s, %s, %s)",
            (tenant, user, f"{user}@example.org", f"{user}@example.org"),
        )
    return user


# No key is wider than whoever makes it


@given(permissions, st.sampled_from(sorted(ROLES)), scopes, users, users)
def test_no_key_is_wider_than_whoever_makes_it(held, role, narrowed, maker, user):
    giver = Caller("ten_a", "key_a", "custom", held, maker)
    wanted = permissions_of(role, None, narrowed)
    try:
        check_key(giver, wanted, user)
    except Wider:
        blind = giver.only_user is not None and user != giver.only_user
        anothers = user not in (None, giver.user) and Permission.USERS_MANAGE not in held
        assert wanted - held or blind or anothers, "what is no wider is given"
        return
    assert wanted <= held
    made = Caller("ten_a", "key_b", role, wanted, user)
    assert giver.only_user is None or made.only_user == giver.only_user, "it sees no conversation that its maker cannot"


@given(permissions, permissions)
def test_no_role_is_wider_than_whoever_makes_it(held, wanted):
    giver = Caller("ten_a", "key_a", "custom", held)
    if wanted <= held:
        check_given(giver, wanted)
    else:
        with pytest.raises(Wider, match=sorted(wanted - held)[0]):
            check_given(giver, wanted)


@pytest.mark.parametrize("role", GIVEN)
async def test_a_role_that_may_make_keys_makes_those_that_are_no_wider(desk: Office, role: str) -> None:
    own = await desk.tenant()
    maker = await desk.key(own, role)
    for wanted in ROLES:
        answer = await desk.ask("POST", "keys", {"name": "k", "role": wanted}, maker)
        may = Permission.KEYS_MANAGE in ROLES[role] and ROLES[wanted] <= ROLES[role]
        assert answer.status_code == (201 if may else 403), (wanted, answer.text)


async def test_scopes_of_the_maker_narrow_what_it_makes(desk: Office) -> None:
    own = await desk.tenant()
    narrow = await desk.key(own, "admin", scopes=["keys:manage", "models:read"])
    assert await desk.refused("POST", "keys", {"name": "k", "role": "member"}, narrow) == ("wider_than_own", None)
    made = await desk.call("POST", "keys", {"name": "k", "role": "member", "scopes": ["models:read"]}, narrow, 201)
    await desk.call("GET", "models", None, bearer(made["key"]))
    await desk.refused("GET", "conversations", None, bearer(made["key"]))


async def test_who_sees_its_own_conversations_alone_makes_keys_of_its_own(desk: Office, database_url: str) -> None:
    own = await desk.tenant()
    user, other = make_user(database_url, own), make_user(database_url, own)
    admin = await desk.key(own, "admin")
    role = {"name": "maker", "permissions": ["keys:manage", "conversations:read"]}
    await desk.call("POST", "roles", role, admin, 201)
    maker = await desk.key(own, "maker", user_id=user)
    made = await desk.call("POST", "keys", {"name": "k", "role": "maker"}, maker, 201)
    assert made["user_id"] == user
    assert (await desk.refused("POST", "keys", {"name": "k", "role": "maker", "user_id": other}, maker))[0] == (
        "wider_than_own"
    )
    unknown = {"name": "k", "role": "member", "user_id": new_id("usr")}
    assert await desk.refused("POST", "keys", unknown, admin, 422) == ("unknown_user", "user_id")


# What a key is


async def test_a_key_is_shown_once_and_only_an_hmac_is_kept(desk: Office, database_url: str) -> None:
    own = await desk.tenant()
    body = {"name": "app", "role": "service", "scopes": ["messages:send"]}
    made = await desk.call("POST", f"admin/tenants/{own}/keys", body, status=201)
    key = made["key"]
    assert key.startswith("brain_") and len(key) == 49 and made["id"].startswith("key_")
    assert key.startswith(made["prefix"]) and len(made["prefix"]) == 12 and made["scopes"] == ["messages:send"]
    listed = await desk.call("GET", f"admin/tenants/{own}/keys")
    assert listed["data"] == [{name: value for name, value in made.items() if name != "key"}]
    assert made["status"] == "active" and made["last_used_at"] is None and made["expires_at"] is None
    with psycopg.connect(database_url) as connection:
        for (table,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'brain'").fetchall():
            rows = connection.execute(f"SELECT t::text FROM brain.{table} t").fetchall()
            assert not any(key in row for (row,) in rows), table


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"role": "member"}, "name"),
        ({"name": "k", "role": "nobody"}, "role"),
        ({"name": "k", "scopes": ["fly"]}, None),
        ({"name": "k", "scopes": ["platform:tenants"]}, None),
        ({"name": "k", "expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "k", "expires_at": "2101-01-01T00:00:00"}, "expires_at"),
        ({"name": "k", "expires_at": "soon"}, "expires_at"),
        ({"name": "k", "key": "x"}, "key"),
    ],
)
async def test_a_wrong_field_of_a_key_is_named(desk: Office, body: object, param: str | None) -> None:
    own = await desk.tenant()
    assert (await desk.refused("POST", f"admin/tenants/{own}/keys", body, status=422))[1] == param


async def test_nobody_gives_the_operators_role(desk: Office) -> None:
    own = await desk.tenant()
    for tenant in (own, desk.world.tenant):
        body = {"name": "k", "role": "operator"}
        assert (await desk.refused("POST", f"admin/tenants/{tenant}/keys", body))[0] == "wider_than_own"


async def test_a_repeated_request_shows_the_same_key(desk: Office, database_url: str) -> None:
    own = await desk.tenant()
    key = {"idempotency-key": new_id("req")}
    path, body = f"admin/tenants/{own}/keys", {"name": "once", "role": "member"}
    first = await desk.ask("POST", path, body, headers=key)
    again = await desk.ask("POST", path, body, headers=key)
    assert first.json() == again.json() and again.headers["idempotent-replayed"] == "true"
    await desk.call("POST", path, {"name": "twice", "role": "member"}, status=422, headers=key)
    assert len((await desk.call("GET", path))["data"]) == 1


async def test_a_quota_bounds_the_keys_that_count(desk: Office) -> None:
    own = await desk.tenant(quotas={"max_keys": 2})
    admin = await desk.key(own, "admin")
    made = await desk.call("POST", "keys", {"name": "k"}, admin, 201)
    assert (await desk.refused("POST", "keys", {"name": "k"}, admin, 409))[0] == "quota_exceeded"
    await desk.call("DELETE", f"keys/{made['id']}", None, admin)
    await desk.call("POST", "keys", {"name": "k"}, admin, 201)


# Ends


async def test_a_revoked_key_opens_nothing_and_stays_in_the_list(desk: Office) -> None:
    own, other = await desk.tenant(), await desk.tenant()
    admin, others = await desk.key(own, "admin"), await desk.key(other, "admin")
    made = await desk.call("POST", "keys", {"name": "k"}, admin, 201)
    await desk.call("GET", "models", None, bearer(made["key"]))
    await desk.refused("DELETE", f"keys/{made['id']}", None, others, 404)
    await desk.refused("POST", f"keys/{made['id']}/rotate", None, others, 404)
    assert made["id"] not in str(await desk.call("GET", "keys", None, others))
    assert await desk.call("DELETE", f"keys/{made['id']}", None, admin) == {
        "id": made["id"],
        "object": "api_key",
        "deleted": True,
    }
    await desk.refused("GET", "models", None, bearer(made["key"]), 401)
    listed = {one["id"]: one["status"] for one in (await desk.call("GET", "keys", None, admin))["data"]}
    assert listed[made["id"]] == "revoked"
    await desk.refused("DELETE", f"keys/{new_id('key')}", None, admin, 404)
    assert (await desk.refused("POST", f"keys/{made['id']}/rotate", None, admin, 409))[0] == "key_ended"


async def test_the_operators_own_key_is_neither_revoked_nor_rotated(desk: Office) -> None:
    keys = (await desk.call("GET", "keys?limit=100"))["data"]
    operators = next(one["id"] for one in keys if one["role"] == "operator" and one["status"] == "active")
    await desk.refused("DELETE", f"keys/{operators}", status=404)
    await desk.refused("POST", f"keys/{operators}/rotate", status=404)
    await desk.call("POST", "keys/rotate", {"overlap_seconds": 0}, status=201)
    assert await desk.call("GET", "keys"), "it counts still"


async def test_a_key_ends_at_its_time(desk: Office) -> None:
    own = await desk.tenant()
    at = datetime.now(UTC) + timedelta(hours=1)
    key = await desk.key(own, "member", expires_at=at.isoformat())
    await desk.call("GET", "models", None, key)
    desk.world.parts.callers._clock = lambda: at.timestamp() + 1
    await desk.refused("GET", "models", None, key, 401)


# Rotation


async def test_a_rotated_key_lives_on_for_the_overlap(desk: Office) -> None:
    own = await desk.tenant()
    admin = await desk.key(own, "admin")
    old = await desk.call("POST", "keys", {"name": "k", "scopes": ["models:read"]}, admin, 201)
    new = await desk.call("POST", f"keys/{old['id']}/rotate", {"overlap_seconds": 600}, admin, 201)
    assert (new["name"], new["role"], new["scopes"]) == (old["name"], old["role"], old["scopes"])
    for one in (old, new):
        await desk.call("GET", "models", None, bearer(one["key"]))
        await desk.refused("GET", "conversations", None, bearer(one["key"]))
    listed = {one["id"]: one for one in (await desk.call("GET", "keys", None, admin))["data"]}
    ends = datetime.fromisoformat(listed[old["id"]]["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=500) < ends <= timedelta(seconds=600)
    assert listed[old["id"]]["replaced_by"] == new["id"] and listed[new["id"]]["expires_at"] is None
    await desk.refused("POST", f"keys/{old['id']}/rotate", None, admin, 409)
    now = await desk.call("POST", f"keys/{new['id']}/rotate", {"overlap_seconds": 0}, admin, 201)
    await desk.refused("GET", "models", None, bearer(new["key"]), 401)
    await desk.call("GET", "models", None, bearer(now["key"]))
    for seconds in (-1, 7 * 86400 + 1, "1"):
        path = f"keys/{now['id']}/rotate"
        assert (await desk.refused("POST", path, {"overlap_seconds": seconds}, admin, 422))[1] == "overlap_seconds"


async def test_all_keys_of_a_tenant_are_rotated_at_once(desk: Office) -> None:
    own = await desk.tenant()
    before = [await desk.key(own, role) for role in ("owner", "admin", "member")]
    path, once = f"admin/tenants/{own}/rotate-keys", {"idempotency-key": new_id("req")}
    made = await desk.call("POST", path, {"overlap_seconds": 600}, status=201, headers=once)
    assert [one["role"] for one in made["data"]] == ["owner", "admin", "member"] and made["object"] == "list"
    assert await desk.call("POST", path, {"overlap_seconds": 600}, status=201, headers=once) == made
    after = [bearer(one["key"]) for one in made["data"]]
    for key in (*before, *after):
        await desk.call("GET", "models", None, key)
    newest = await desk.call("POST", path, {"overlap_seconds": 0}, status=201)
    assert len(newest["data"]) == 3, "those that were replaced before are not replaced again"
    for key in (*before, *after):
        await desk.refused("GET", "models", None, key, 401)
    for one in newest["data"]:
        await desk.call("GET", "models", None, bearer(one["key"]))


async def test_keys_of_users_who_are_gone_are_left_alone(desk: Office, database_url: str) -> None:
    own = await desk.tenant()
    user = make_user(database_url, own)
    await desk.key(own, "owner")
    gone = await desk.key(own, "member", user_id=user)
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM brain.users WHERE id = %s", [user])
    desk.world.parts.callers.forget(None)
    await desk.refused("GET", "models", None, gone, 401)
    made = await desk.call("POST", f"admin/tenants/{own}/rotate-keys", status=201)
    assert [one["role"] for one in made["data"]] == ["owner"]


async def test_nobody_rotates_keys_that_are_wider_than_his_own(desk: Office) -> None:
    own = await desk.tenant()
    owner, admin = await desk.key(own, "owner"), await desk.key(own, "admin")
    listed = (await desk.call("GET", "keys", None, admin))["data"]
    owners = next(one["id"] for one in listed if one["role"] == "owner")
    assert (await desk.refused("POST", f"keys/{owners}/rotate", None, admin))[0] == "wider_than_own"
    assert (await desk.refused("POST", "keys/rotate", None, admin))[0] == "wider_than_own"
    assert len((await desk.call("GET", "keys", None, admin))["data"]) == 2, "nothing has changed"
    assert len((await desk.call("POST", "keys/rotate", None, owner, 201))["data"]) == 2


# Their last use


async def test_when_a_key_was_used_is_written_beside_the_requests(desk: Office) -> None:
    own = await desk.tenant()
    admin = await desk.key(own, "admin")
    (key,) = (await desk.call("GET", "keys", None, admin))["data"]
    assert key["last_used_at"] is None
    administration = desk.world.parts.administration
    assert administration is not None
    await administration.used.flush()
    (key,) = (await desk.call("GET", "keys", None, admin))["data"]
    assert key["last_used_at"] > key["created_at"]


async def test_uses_are_noted_once_a_minute_and_kept_while_the_database_is_away() -> None:
    written, now, away = [], 1000.0, True

    async def write(seen):
        if away:
            raise Unavailable
        written.append(dict(seen))

    used, caller = KeysUsed(write, lambda: now), Caller("ten_a", "key_a")
    used.saw(caller)
    used.saw(Caller("ten_a", "usr_a", token="jti"))
    with pytest.raises(Unavailable):
        await used.flush()
    away = False
    await used.flush()
    await used.flush()
    assert written == [{("ten_a", "key_a"): 1000.0}]
    now = 1059.0
    used.saw(caller)
    await used.flush()
    assert len(written) == 1
    now = 1060.0
    used.saw(caller)
    await used.close()
    assert written[1:] == [{("ten_a", "key_a"): 1060.0}]
