"""`brain users` against a real ingress."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from typer.testing import CliRunner, Result

from serve_app.cli import app
from serve_app.embedded.refusal import Refusal
from tests.unit.users_world import PASSWORD, People, address, people


@pytest.fixture
async def brain(database_url: str, redis_url: str, tenant: str) -> AsyncIterator[People]:
    async with people(database_url, redis_url, tenant) as made:
        yield made


async def run(brain: People, *arguments: str, role: str = "owner", given: str | None = None) -> Result:
    environment = {
        "BRAIN_URL": brain.world.url,
        "BRAIN_API_KEY": brain.headers[role]["authorization"].split()[1],
        "BRAIN_USER_PASSWORD": PASSWORD if given is None else "",
    }
    return await asyncio.to_thread(CliRunner().invoke, app, ["users", *arguments], env=environment, input=given)


async def test_a_user_is_made_signed_in_changed_and_removed(brain: People) -> None:
    email = address()
    made = await run(brain, "create", email, "--name", "Ada", "--role", "agent")
    assert made.exit_code == 0, (made.output, made.exception)
    user = made.stdout.strip()
    listed = await run(brain, "list", "--role", "agent")
    assert all(words in listed.stdout for words in (user, email, "Ada", "agent", "active"))
    assert (await run(brain, "list", "--status", "disabled")).stdout == "There are no users.\n"
    token = (await run(brain, "sign-in", email)).stdout.strip()
    assert (await brain.call("GET", "users/me", as_=token))["id"] == user
    assert (await run(brain, "sign-out", user)).stdout == f"1 sign-ins of {user} have ended\n"
    await brain.call("GET", "users/me", as_=token, status=401)
    told = json.loads((await run(brain, "sign-in", email, "--json")).stdout)
    await brain.call("POST", "conversations", {"user_id": user}, as_=told["access_token"], status=201)
    assert (await run(brain, "set", user, "--status", "disabled")).stdout == f"{user}: agent, disabled\n"
    gone = await run(brain, "delete", user, "--erase")
    assert gone.stdout == f"{user} is gone; 1 conversations were deleted\n"


async def test_a_password_is_asked_for_twice_and_never_shown(brain: People) -> None:
    asked = await run(brain, "create", address(), given=f"{PASSWORD}\n{PASSWORD}\n")
    assert asked.exit_code == 0 and PASSWORD not in asked.output
    assert "usr_" in asked.stdout


async def test_what_is_wrong_is_said_in_one_line(brain: People) -> None:
    for arguments, role, words in (
        (("create", "nobody"), "owner", "email"),
        (("create", address(), "--role", "owner"), "admin", "may do more than you may"),
        (("set", "usr_1"), "owner", "name what to change"),
        (("delete", "usr_1"), "owner", "there is no such user"),
        (("sign-in", address()), "service", "e-mail address or the password is wrong"),
    ):
        failed = await run(brain, *arguments, role=role)
        assert isinstance(failed.exception, Refusal) and words in str(failed.exception), failed.output
