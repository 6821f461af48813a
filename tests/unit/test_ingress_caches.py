"""Caches by name, for the operator."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from typer.testing import CliRunner, Result

from serve_app.cli import app
from serve_app.ingress.parts import IngressSettings
from tests.unit.ingress_world import KEY, World, world

PATH = "/api/v1/admin/caches"


@pytest.fixture
async def brain(database_url: str, tenant: str) -> AsyncIterator[World]:
    async with world(database_url, tenant, IngressSettings(poll=0.01)) as made:
        yield made


async def test_the_operator_sees_how_well_each_cache_serves(brain: World) -> None:
    for _ in range(3):
        answer = await brain.http.get(PATH)
    assert answer.status_code == 200
    (credentials,) = answer.json()["data"]
    assert credentials == {
        "name": "credentials",
        "object": "cache",
        "shared": False,
        "entries": 1,
        "bound": 10_000,
        "hits": 2,
        "misses": 1,
        "hit_rate": 0.6667,
        "evicted": 0,
    }
    assert (answer.json()["first_id"], answer.json()["has_more"]) == ("credentials", False)


async def test_a_flush_forgets_what_was_known(brain: World) -> None:
    flushed = []

    async def told(caller, name):
        flushed.append((caller.role, name))

    brain.parts.tell_flush = told
    await brain.http.get(PATH)
    answer = await brain.http.post(f"{PATH}/credentials/flush")
    assert answer.json() == {"name": "credentials", "object": "cache", "flushed": True}
    assert flushed == [("operator", "credentials")]
    assert (await brain.http.get(PATH)).json()["data"][0]["misses"] == 2
    assert (await brain.http.post(f"{PATH}/nothing/flush")).status_code == 404
    assert flushed == [("operator", "credentials")]


async def brain_command(brain: World, *arguments: str) -> Result:
    environment = {"BRAIN_URL": brain.url, "BRAIN_API_KEY": KEY}
    return await asyncio.to_thread(CliRunner().invoke, app, ["caches", *arguments], env=environment)


async def test_the_command_line_lists_and_flushes(brain: World) -> None:
    listed = await brain_command(brain, "list", "--json")
    assert [one["name"] for one in json.loads(listed.stdout)] == ["credentials"], listed.output
    assert "credentials" in (await brain_command(brain, "list")).stdout
    assert (await brain_command(brain, "flush", "credentials")).stdout == "credentials is flushed\n"
    unknown = await brain_command(brain, "flush", "nothing")
    assert unknown.exit_code != 0 and "there is no such cache" in str(unknown.exception)
