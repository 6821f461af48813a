"""`brain tenants`, `brain keys`, `brain roles`, `brain audit` and `brain seed` against a real ingress."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from serve_app.cli import app, seed
from serve_app.cli.pairs import settings_of
from serve_app.embedded.refusal import Refusal
from serve_app.ingress.parts import Intents
from storage.intents import PostgresIntents
from tests.unit.administration_world import Office, bearer, office
from tests.unit.ingress_world import KEY
from tests.unit.intents_world import understanders


@pytest.fixture
async def desk(database_url: str, tenant: str) -> AsyncIterator[Office]:
    async with office(database_url, tenant) as made:
        yield made


async def run(desk: Office, *arguments: str, key: str = KEY, answer: str | None = None) -> Result:
    environment = {"BRAIN_URL": desk.world.url, "BRAIN_API_KEY": key}
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments), input=answer, env=environment)


async def done(desk: Office, *arguments: str, key: str = KEY, answer: str | None = None) -> str:
    found = await run(desk, *arguments, key=key, answer=answer)
    assert found.exit_code == 0, (found.output, found.exception)
    return found.stdout


async def refused(desk: Office, *arguments: str, key: str = KEY) -> str:
    found = await run(desk, *arguments, key=key)
    assert isinstance(found.exception, Refusal), (found.output, found.exception)
    assert "\n" not in str(found.exception)
    return str(found.exception)


async def test_a_tenant_is_made_set_suspended_and_deleted(desk: Office) -> None:
    made = (await done(desk, "tenants", "create", "acme", "retention_days=30", "limits.requests_per_minute=60")).strip()
    shown = json.loads(await done(desk, "tenants", "show", made, "--json"))
    assert shown["settings"]["retention_days"] == 30 and shown["settings"]["limits"]["requests_per_minute"] == 60
    await done(
        desk, "tenants", "set", made, "limits.per_user.concurrent_turns=2", "system_prompt=Be kind.", "--name", "Acme"
    )
    shown = json.loads(await done(desk, "tenants", "show", made, "--json"))
    assert (shown["name"], shown["settings"]["system_prompt"]) == ("Acme", "Be kind.")
    limits = shown["settings"]["limits"]
    assert (limits["requests_per_minute"], limits["per_user"]["concurrent_turns"]) == (60, 2), "the others stay"
    assert "retention_days: 30" in await done(desk, "tenants", "show", made)
    assert "suspended" in await done(desk, "tenants", "suspend", made)
    suspended = json.loads(await done(desk, "tenants", "list", "--status", "suspended", "--json"))
    assert made in [one["id"] for one in suspended] and {one["status"] for one in suspended} == {"suspended"}
    assert "active" in await done(desk, "tenants", "resume", made)
    assert f"{made} │ Acme " in await done(desk, "tenants", "list"), "nothing is cut off"
    kept = await run(desk, "tenants", "delete", made, answer="n\n")
    assert kept.exit_code == 1 and made in await done(desk, "tenants", "list", "--json")
    await done(desk, "tenants", "delete", made, "--yes")
    assert "no such tenant" in await refused(desk, "tenants", "show", made)
    told = json.loads(await done(desk, "audit", "--tenant", made, "--action", "tenant.delete", "--json"))
    assert [one["subject"] for one in told] == [made]


async def test_a_key_is_made_used_rotated_and_revoked(desk: Office) -> None:
    own = await desk.tenant()
    key = (await done(desk, "keys", "create", "app", "--role", "owner", "--tenant", own, "--days", "30")).strip()
    made = (await done(desk, "keys", "create", "bot", "--scope", "models:read", key=key)).strip()
    await desk.call("GET", "models", None, bearer(made))
    listed = json.loads(await done(desk, "keys", "list", "--json", key=key))
    assert {one["name"]: one["scopes"] for one in listed} == {"app": None, "bot": ["models:read"]}
    assert made not in str(listed) and "app" in await done(desk, "keys", "list", "--tenant", own)
    bot = next(one["id"] for one in listed if one["name"] == "bot")
    new = (await done(desk, "keys", "rotate", bot, "--overlap", "0", key=key)).strip()
    await desk.refused("GET", "models", None, bearer(made), 401)
    await desk.call("GET", "models", None, bearer(new))
    all_new = json.loads(await done(desk, "keys", "rotate", "--tenant", own, "--json"))
    assert {one["name"] for one in all_new} == {"app", "bot"}
    bot = next(one["id"] for one in all_new if one["name"] == "bot")
    assert "revoked" in await done(desk, "keys", "revoke", bot, key=key)
    assert "no such key" in await refused(desk, "keys", "revoke", "key_x", key=key)
    assert "which you do not have yourself" in await refused(
        desk, "keys", "create", "x", "--role", "owner", key=(await desk.key(own, "admin"))["authorization"].split()[1]
    )


async def test_a_role_is_defined_given_changed_and_removed(desk: Office) -> None:
    own = await desk.tenant()
    key = (await desk.key(own, "owner"))["authorization"].split()[1]
    await done(desk, "roles", "create", "reader", "models:read", "--description", "reads", key=key)
    assert "models:read" in await done(desk, "roles", "show", "reader", key=key)
    await done(desk, "roles", "set", "reader", "intents:read", "models:read", key=key)
    listed = json.loads(await done(desk, "roles", "list", "--json", key=key))
    assert next(one for one in listed if one["name"] == "reader")["permissions"] == ["intents:read", "models:read"]
    assert "keys:manage" in await done(desk, "roles", "permissions", key=key)
    assert "removed" in await done(desk, "roles", "delete", "reader", key=key)
    assert "no permission" in await refused(desk, "roles", "create", "x", "fly", key=key)
    log = await done(desk, "audit", key=key)
    assert "role.create" in log and "(owner)" in log and "role.delete" in log


async def test_what_is_wrong_is_said_in_one_line(desk: Office) -> None:
    own = await desk.tenant()
    member = (await desk.key(own, "member"))["authorization"].split()[1]
    assert "operator's key" in await refused(desk, "tenants", "list", key=member)
    assert "keys:read" in await refused(desk, "keys", "list", key=member)
    assert "does not accept this API key" in await refused(desk, "tenants", "list", key="x" * 40)
    assert "nothing to set" in await refused(desk, "tenants", "set", own)
    assert "retention_days" in await refused(desk, "tenants", "set", own, "retention_days=never")
    assert "no such tenant" in await refused(desk, "keys", "create", "x", "--tenant", "ten_x")


@pytest.mark.parametrize(
    ("pairs", "present", "given"),
    [
        (["a=1", "b=x", 'c="1"', "d=null"], None, {"a": 1, "b": "x", "c": "1", "d": None}),
        (["a.b=1"], {"a": {"b": 0, "c": 2}, "d": 4}, {"a": {"b": 1, "c": 2}}),
        (["a.b.c=1", "a.b.d=2"], {}, {"a": {"b": {"c": 1, "d": 2}}}),
        (["a=x=y"], None, {"a": "x=y"}),
    ],
)
def test_settings_are_read_from_pairs(pairs, present, given) -> None:
    before = json.dumps(present)
    assert settings_of(pairs, present) == given and json.dumps(present) == before


@pytest.mark.parametrize("pair", ["a", "=1", "a.=1", ".a=1"])
def test_what_is_no_pair_is_told(pair: str) -> None:
    with pytest.raises(Refusal, match="is no setting"):
        settings_of([pair])


async def test_the_demonstration_is_made_once_and_checked(desk: Office, tmp_path: Path) -> None:
    async with understanders(desk.world.pool, tmp_path) as found:

        async def wake() -> None:
            found.trainer.wake()

        parts = desk.world.parts
        parts.classifier = found.replicas[0]
        parts.intents = Intents(PostgresIntents(desk.world.pool), found.trainings, found.heads, wake)
        first = await done(desk, "seed")
        for shop in seed.SHOPS:
            more = ", 3 intents" if shop.intents else f", {len(shop.products)} products"
            told = rf"{re.escape(shop.name)}: \d users, {len(shop.talks)} conversations{more}; all checked"
            assert re.search(told, first), first
        keys = [line.split()[-1] for line in first.splitlines() if "key of an owner" in line]
        for key in keys:
            await desk.call("GET", "conversations", None, bearer(key))
        tenants = json.loads(await done(desk, "tenants", "list", "--json"))
        made = {one["name"]: one["id"] for one in tenants if "demonstration" in one["name"]}
        figures = await desk.call("GET", "admin/stats")
        await done(desk, "seed")
        after = await desk.call("GET", "admin/stats")
        assert [figures[name] for name in ("tenants", "conversations", "messages")] == [
            after[name] for name in ("tenants", "conversations", "messages")
        ]
        key = await desk.key(made[seed.SHOPS[0].name], "owner")
        (talk,) = (one for one in (await desk.call("GET", "conversations", None, key))["data"] if "red" in one["title"])
        messages = (await desk.call("GET", f"conversations/{talk['id']}/messages", None, key))["data"]
        await desk.call("DELETE", f"messages/{messages[0]['id']}", None, key)
        assert "does not hold what was said in it" in await refused(desk, "seed")
        for tenant in made.values():
            await done(desk, "tenants", "delete", tenant, "--yes")


async def test_a_demonstration_can_be_had_without_training(desk: Office) -> None:
    found = await run(desk, "seed", "--no-train")
    assert found.exit_code == 0, (found.output, found.exception)
    for one in json.loads(await done(desk, "tenants", "list", "--json")):
        if "demonstration" in one["name"]:
            await done(desk, "tenants", "delete", one["id"], "--yes")
