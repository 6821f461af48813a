"""What a user has open, seen and ended by itself and by who manages users."""

from collections.abc import AsyncIterator

import psycopg
import pytest

from tests.unit.test_oauth import BACK, Flow, app, post
from tests.unit.users_world import People, people


@pytest.fixture
async def brain(database_url: str, redis_url: str, tenant: str) -> AsyncIterator[People]:
    async with people(database_url, redis_url, tenant) as made:
        yield made


async def test_sign_ins_are_listed_with_the_client_that_was_allowed(brain: People) -> None:
    user = await brain.user()
    first = await brain.sign_in(user)
    client = await app(brain, name="Calendar", scopes=["users:self"])
    through = Flow(client, user)
    await post(brain, "token", through.exchange(await through.code(brain)), client)
    path = f"users/{user['id']}/sessions"
    for as_ in (first["access_token"], "admin"):
        found = (await brain.call("GET", path, as_=as_))["data"]
        assert [(one["client_id"], one["client_name"]) for one in found] == [(client["id"], "Calendar"), (None, None)]
        assert found[0]["scopes"] == ["users:self"] and found[0]["object"] == "session"
    page = await brain.call("GET", f"{path}?limit=1", as_="admin")
    assert page["has_more"] and page["last_id"] == found[0]["id"]
    rest = await brain.call("GET", f"{path}?after={page['last_id']}", as_="admin")
    assert [one["id"] for one in rest["data"]] == [found[1]["id"]]
    assert BACK in client["redirect_uris"]
    for as_, status in (("agent", 403), ("stranger", 404)):
        await brain.call("GET", path, as_=as_, status=status)


async def test_one_sign_in_is_ended_and_the_others_go_on(brain: People) -> None:
    user, other = await brain.user(), await brain.user()
    old, new, his = await brain.sign_in(user), await brain.sign_in(user), await brain.sign_in(other)
    path = f"users/{user['id']}/sessions"
    ids = [one["id"] for one in (await brain.call("GET", path, as_=new["access_token"]))["data"]]
    await brain.call("DELETE", f"{path}/{ids[1]}", as_=his["access_token"], status=403)
    await brain.call("DELETE", f"users/{other['id']}/sessions/{ids[1]}", as_=his["access_token"], status=404)
    await brain.call("DELETE", f"{path}/{ids[1]}", as_=new["access_token"])
    await brain.call("GET", "users/me", as_=old["access_token"], status=401)
    await brain.call("POST", "auth/refresh", {"refresh_token": old["refresh_token"]}, None, 401)
    await brain.call("GET", "users/me", as_=new["access_token"])
    assert [one["id"] for one in (await brain.call("GET", path, as_=new["access_token"]))["data"]] == [ids[0]]


async def test_an_administrator_signs_a_user_out_everywhere(brain: People) -> None:
    user, owner = await brain.user(), await brain.user("owner")
    told = [await brain.sign_in(user) for _ in range(2)]
    gone = await brain.call("DELETE", f"users/{user['id']}/sessions")
    assert gone["ended"] == 2
    for one in told:
        await brain.call("GET", "users/me", as_=one["access_token"], status=401)
        await brain.call("POST", "auth/refresh", {"refresh_token": one["refresh_token"]}, None, 401)
    await brain.call("GET", "users/me", as_=(await brain.sign_in(user))["access_token"])
    await brain.call("DELETE", f"users/{owner['id']}/sessions", as_="admin", status=403)
    assert brain.audited(user["id"])[-1] == "user.sign_out"


async def test_a_sign_in_that_nobody_prolongs_ends(brain: People) -> None:
    told = await brain.sign_in(await brain.user())
    with psycopg.connect(brain.database_url) as connection:
        connection.execute(
            "UPDATE brain.refresh_tokens r SET created_at = now() - interval '7 days 1 second' FROM brain.sessions s"
            " WHERE s.id = r.session_id AND s.user_id = %s",
            (told["user"]["id"],),
        )
    assert (await brain.call("GET", f"users/{told['user']['id']}/sessions"))["data"] == []
    await brain.call("POST", "auth/refresh", {"refresh_token": told["refresh_token"]}, None, 401)
