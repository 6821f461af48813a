"""Signing in, prolonging, signing out; what of tokens counts when, and for whom."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from domain.ids import new_id
from serve_app.ingress.passwords import Passwords
from tests.unit.users_world import PASSWORD, People, address, people


@pytest.fixture
async def brain(database_url: str, redis_url: str, tenant: str) -> AsyncIterator[People]:
    async with people(database_url, redis_url, tenant) as made:
        yield made


async def test_who_registers_signs_in_and_is_known(brain: People) -> None:
    email = address()
    body = {"email": email, "password": PASSWORD, "name": "Ada", "preferences": {"theme": "dark"}}
    made = await brain.call("POST", "auth/register", body, "service", 201)
    assert (made["object"], made["email"], made["role"], made["status"]) == ("user", email, "member", "active")
    assert made["tenant_id"] == brain.tenant and made["id"].startswith("usr_") and "password" not in made
    answer = await brain.ask("POST", "auth/login", {"email": email.upper(), "password": PASSWORD}, "service")
    told = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert (told["token_type"], told["expires_in"], told["user"]["id"]) == ("Bearer", 900, made["id"])
    me = await brain.call("GET", "users/me", as_=told["access_token"])
    assert me["id"] == made["id"] and me["preferences"] == {"theme": "dark"}
    assert brain.audited(made["id"]) == ["user.register"]


async def test_an_address_is_one_users_of_a_tenant_and_may_be_anothers_elsewhere(brain: People) -> None:
    email = address()
    body = {"email": email, "password": PASSWORD}
    await brain.call("POST", "auth/register", body, "service", 201)
    again = await brain.call("POST", "auth/register", {**body, "email": email.title()}, "service", 409)
    assert (again["error"]["code"], again["error"]["param"]) == ("email_taken", "email")
    await brain.call("POST", "auth/register", body, "stranger", 201)


async def test_registering_twice_with_one_key_is_once_and_a_password_is_part_of_the_body(brain: People) -> None:
    body, headers = {"email": address(), "password": PASSWORD}, {"idempotency-key": new_id("req")}
    first = await brain.ask("POST", "auth/register", body, "service", headers=headers)
    second = await brain.ask("POST", "auth/register", body, "service", headers=headers)
    assert (first.status_code, second.status_code) == (201, 201) and first.json() == second.json()
    assert second.headers["idempotent-replayed"] == "true"
    other = await brain.ask("POST", "auth/register", {**body, "password": PASSWORD + "!"}, "service", headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("password", "short12"),
        ("password", "x" * 1025),
        ("password", "Password123"),
        ("password", "iloveyou1"),
        ("email", "nobody"),
        ("email", "a b@example.com"),
        ("email", "a@b@example.com"),
    ],
)
async def test_what_nobody_should_register_with_is_refused_by_name(brain: People, field: str, value: str) -> None:
    body = {"email": address(), "password": PASSWORD, field: value}
    refused = await brain.call("POST", "auth/register", body, "service", 422)
    assert refused["error"]["param"] == field


async def test_what_everybody_can_guess_here_is_no_password(brain: People) -> None:
    email = address()
    for password in (email, email.upper(), "brain-2026!", "Admin12345", "Lovelace1815", "example2026", "BrainBrain1"):
        body = {"email": email, "password": password, "name": "Ada Lovelace"}
        refused = await brain.call("POST", "auth/register", body, "service", 422)
        assert refused["error"]["code"] == "weak_password", password
    body = {"email": email, "password": "brain storms at noon", "name": "Ada Lovelace"}
    await brain.call("POST", "auth/register", body, "service", 201)


async def test_wrong_passwords_unknown_and_disabled_users_are_answered_alike(brain: People) -> None:
    user, gone = await brain.user(), await brain.user(status="disabled")
    answers = [
        await brain.ask("POST", "auth/login", {"email": email, "password": password}, "service")
        for email, password in ((user["email"], "wrong"), (address(), PASSWORD), (gone["email"], PASSWORD))
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].json()["error"]["code"] == "invalid_credentials"


async def test_a_user_signs_in_to_its_own_tenant_alone_and_with_a_key_of_it(brain: People) -> None:
    user = await brain.user()
    body = {"email": user["email"], "password": PASSWORD}
    await brain.call("POST", "auth/login", body, "stranger", 401)
    await brain.call("POST", "auth/login", body, None, 401)
    await brain.call("POST", "auth/login", body, "read-only", 403)


async def test_too_many_failures_by_one_account_wait_and_other_accounts_do_not(brain: People) -> None:
    user, other = await brain.user(), await brain.user()
    body = {"email": user["email"], "password": "wrong"}
    for _ in range(10):
        await brain.call("POST", "auth/login", body, "service", 401)
    refused = await brain.ask("POST", "auth/login", {**body, "password": PASSWORD}, "service")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_attempts")
    assert 0 < int(refused.headers["retry-after"]) <= 301
    await brain.sign_in(other)


async def test_failures_count_by_the_network_that_the_owner_of_an_address_has(brain: People) -> None:
    user = await brain.user()
    body = {"email": user["email"], "password": "wrong"}

    async def status(address: str) -> int:
        as_ = {**brain.headers["service"], "x-forwarded-for": address}
        return (await brain.ask("POST", "auth/login", body, as_)).status_code

    assert [await status(f"2001:db8:7:1::{n}") for n in range(12)] == [401] * 10 + [429] * 2
    assert await status("2001:db8:7:2::1") == 401


async def test_a_success_forgets_the_failures_before_it(brain: People) -> None:
    user = await brain.user()
    for _ in range(3):
        for _ in range(9):
            await brain.call("POST", "auth/login", {"email": user["email"], "password": "wrong"}, "service", 401)
        await brain.sign_in(user)


async def test_failures_at_once_are_no_more_than_one_after_the_other(brain: People) -> None:
    user = await brain.user()
    body = {"email": user["email"], "password": "wrong"}
    answers = await asyncio.gather(*(brain.ask("POST", "auth/login", body, "service") for _ in range(25)))
    assert sorted(answer.status_code for answer in answers) == [401] * 10 + [429] * 15


async def test_a_refresh_token_counts_once_and_its_reuse_ends_the_sign_in(brain: People) -> None:
    user = await brain.user()
    first = await brain.sign_in(user)
    second = await brain.call("POST", "auth/refresh", {"refresh_token": first["refresh_token"]}, None)
    assert second["refresh_token"] != first["refresh_token"] and second["user"]["id"] == user["id"]
    await brain.call("GET", "users/me", as_=second["access_token"])
    stolen = await brain.call("POST", "auth/refresh", {"refresh_token": first["refresh_token"]}, None, 401)
    assert stolen["error"]["code"] == "invalid_refresh_token"
    await brain.call("POST", "auth/refresh", {"refresh_token": second["refresh_token"]}, None, 401)
    for told in (first, second):
        await brain.call("GET", "users/me", as_=told["access_token"], status=401)
    await brain.sign_in(user)


async def test_of_two_uses_at_once_of_one_refresh_token_at_most_one_counts(brain: People) -> None:
    told = await brain.sign_in(await brain.user())
    body = {"refresh_token": told["refresh_token"]}
    answers = await asyncio.gather(*(brain.ask("POST", "auth/refresh", body, None) for _ in range(4)))
    assert [answer.status_code for answer in answers].count(200) <= 1


@pytest.mark.parametrize("token", ["", "x", "brt_" + "0" * 32 + "_" + "a" * 43, "brt_\0"])
async def test_what_is_no_refresh_token_is_refused(brain: People, token: str) -> None:
    answer = await brain.ask("POST", "auth/refresh", {"refresh_token": token}, None)
    assert answer.status_code in (401, 422)


async def test_an_expired_sign_in_is_not_prolonged(brain: People) -> None:
    told = await brain.sign_in(await brain.user())
    with psycopg.connect(brain.database_url) as connection:
        connection.execute("UPDATE brain.sessions SET expires_at = now() WHERE user_id = %s", (told["user"]["id"],))
    await brain.call("POST", "auth/refresh", {"refresh_token": told["refresh_token"]}, None, 401)


async def test_signing_out_ends_the_token_and_what_would_prolong_it(brain: People) -> None:
    user = await brain.user()
    told, other = await brain.sign_in(user), await brain.sign_in(user)
    out = await brain.call("POST", "auth/logout", as_=told["access_token"])
    assert out["ended"] is True
    await brain.call("GET", "users/me", as_=told["access_token"], status=401)
    await brain.call("POST", "auth/refresh", {"refresh_token": told["refresh_token"]}, None, 401)
    await brain.call("GET", "users/me", as_=other["access_token"])
    await brain.call("POST", "auth/logout", as_="member", status=422)


async def test_a_new_password_ends_the_other_sign_ins(brain: People) -> None:
    user = await brain.user()
    mine, other = await brain.sign_in(user), await brain.sign_in(user)
    body = {"current_password": PASSWORD, "new_password": PASSWORD + " staple"}
    wrong = await brain.call("POST", "auth/password", {**body, "current_password": "x"}, mine["access_token"], 401)
    assert wrong["error"]["param"] == "current_password"
    await brain.call("POST", "auth/password", {**body, "new_password": "password1"}, mine["access_token"], 422)
    await brain.call("POST", "auth/password", body, mine["access_token"])
    await brain.call("GET", "users/me", as_=mine["access_token"])
    await brain.call("GET", "users/me", as_=other["access_token"], status=401)
    await brain.call("POST", "auth/login", {"email": user["email"], "password": PASSWORD}, "service", 401)
    await brain.sign_in(user, PASSWORD + " staple")
    await brain.call("POST", "auth/password", body, "member", 403)


async def test_a_role_and_a_status_count_for_tokens_that_are_out(brain: People) -> None:
    user, token = await brain.signed_in()
    await brain.call("GET", "users", as_=token, status=403)
    await brain.call("PATCH", f"users/{user['id']}", {"role": "agent"}, "admin")
    await brain.call("GET", "users", as_=token)
    await brain.call("PATCH", f"users/{user['id']}", {"status": "disabled"}, "admin")
    await brain.call("GET", "users/me", as_=token, status=401)


async def test_a_suspended_tenants_tokens_count_no_more(brain: People) -> None:
    _, token = await brain.signed_in()
    await brain.call("GET", "users/me", as_=token)
    async with brain.world.pool.acquire() as lent:
        await lent.execute("SELECT brain.change_tenant($1, NULL, 'suspended', NULL)", brain.tenant)
    await brain.watch.refresh()
    await brain.call("GET", "users/me", as_=token, status=401)


async def test_a_custom_role_gives_a_user_its_permissions(brain: People) -> None:
    with psycopg.connect(brain.database_url) as connection:
        connection.execute(
            "INSERT INTO brain.roles (tenant_id, name, permissions) VALUES (%s, 'clerk', %s)",
            (brain.tenant, ["users:self", "users:read", "platform:tenants"]),
        )
    _, token = await brain.signed_in("clerk")
    await brain.call("GET", "users", as_=token)
    await brain.call("GET", "conversations", as_=token, status=403)


async def test_a_signed_in_user_sees_its_own_conversations_alone(brain: People) -> None:
    (ada, hers), (_, his) = await brain.signed_in(), await brain.signed_in()
    made = await brain.call("POST", "conversations", {}, hers, 201)
    assert made["user_id"] == ada["id"]
    await brain.call("GET", f"conversations/{made['id']}", as_=hers)
    await brain.call("GET", f"conversations/{made['id']}", as_=his, status=404)


async def test_a_hash_of_older_parameters_is_made_anew_at_the_next_sign_in(brain: People) -> None:
    user = await brain.user()
    old = await Passwords(memory_kib=64, passes=1).hashed(PASSWORD)
    with psycopg.connect(brain.database_url) as connection:
        connection.execute("UPDATE brain.users SET password_hash = %s WHERE id = %s", (old, user["id"]))
    await brain.call("POST", "auth/login", {"email": user["email"], "password": "wrong"}, "service", 401)
    assert kept(brain, user["id"]) == old
    await brain.sign_in(user)
    made = kept(brain, user["id"])
    assert made != old and "m=19456,t=2,p=1" in made
    await brain.sign_in(user)
    assert kept(brain, user["id"]) == made


def kept(brain: People, user: str) -> str:
    with psycopg.connect(brain.database_url) as connection:
        ((stored,),) = connection.execute("SELECT password_hash FROM brain.users WHERE id = %s", (user,)).fetchall()
    return str(stored)
