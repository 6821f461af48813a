"""Servers of tools and consent through the API, and the service as a server of tools, asked by the official client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from domain.ids import new_id
from tests.conftest import make_database
from tests.doubles.mcp_server import TOKEN, serving_tools
from tests.unit.whole_world import ISSUER, NOWHERE, Whole, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def brain(postgres_folder: Path, redis_url: str, tmp_path_factory: Any) -> AsyncIterator[Whole]:
    async with whole(make_database(postgres_folder), tmp_path_factory.mktemp("whole"), redis_url) as made:
        yield made


async def call(brain: Whole, method: str, path: str, body: Any = None, status: int = 200, **options: Any) -> Any:
    headers = options.pop("headers", None) or brain.owner_of(brain.own.id)
    answer = await brain.world.http.request(
        method, f"/api/v1/tools/{path}".rstrip("/"), json=body, headers=headers, **options
    )
    assert answer.status_code == status, answer.text
    return answer.json()


def body(url: str = NOWHERE, **fields: Any) -> dict[str, Any]:
    return {"name": f"s-{new_id('mcp')[-8:]}", "url": url, "allow": ["weather"], **fields}


# Servers


async def test_a_server_is_registered_with_its_tools_and_its_secret_is_never_shown(brain: Whole) -> None:
    async with serving_tools(token=TOKEN) as double:
        made = await call(brain, "POST", "servers", body(double.url, auth={"bearer": TOKEN}), 201)
        assert made["auth"] == "bearer" and "weather" in made["tools"] and made["error"] is None
        found = await call(brain, "GET", f"servers/{made['id']}")
        assert found == made and TOKEN not in str(await call(brain, "GET", "servers"))
        tools = [one for one in (await call(brain, "GET", ""))["data"] if one["server_id"] == made["id"]]
        assert {one["tool"] for one in tools if one["allowed"]} == {"weather"} and len(tools) > 3
        changed = await call(brain, "PATCH", f"servers/{made['id']}", {"allow": ["book"], "idempotent": ["book"]})
        assert changed["allow"] == ["book"] and changed["auth"] == "bearer"
        elsewhere = {"url": "http://127.0.0.1:9/mcp"}
        refused = await call(brain, "PATCH", f"servers/{made['id']}", elsewhere, 422)
        assert refused["error"]["param"] == "auth"
        changed = await call(brain, "PATCH", f"servers/{made['id']}", {**elsewhere, "auth": None})
        assert changed["auth"] == "none" and changed["error"] and changed["tools"]  # what it had stays
    await call(brain, "DELETE", f"servers/{made['id']}")
    await call(brain, "GET", f"servers/{made['id']}", status=404)
    audit = await brain.call("GET", f"admin/audit?subject={made['id']}", brain.own.id)
    assert TOKEN not in str(audit)


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"name": "With Blanks"}, "name"),
        ({"url": "http://tools.example/mcp"}, None),
        ({"url": "https://10.0.0.1/mcp"}, None),
        ({"auth": {}}, "auth"),
        ({"auth": {"header": "Host", "secret": "x"}}, "auth.header"),
        ({"auth": {"bearer": "line\nbreak"}}, "auth.bearer"),
        ({"consent": "maybe"}, "consent"),
        ({"permissions": []}, "permissions"),
    ],
)
async def test_what_cannot_be_registered_is_refused(brain: Whole, wrong: dict[str, Any], param: str | None) -> None:
    refused = await call(brain, "POST", "servers", body(**wrong), 422)
    assert param is None or refused["error"]["param"].startswith(param.split(".")[0])


async def test_a_repeated_request_registers_once_and_names_are_taken_once(brain: Whole) -> None:
    headers = {**brain.owner_of(brain.own.id), "idempotency-key": new_id("mcp")}
    asked = body()
    one = await call(brain, "POST", "servers", asked, 201, headers=headers)
    two = await call(brain, "POST", "servers", asked, 201, headers=headers)
    assert one["id"] == two["id"]
    await call(brain, "POST", "servers", {**body(), "name": asked["name"]}, 409)


async def test_users_consent_for_themselves(brain: Whole) -> None:
    made = await call(brain, "POST", "servers", body(consent="user"), 201)
    user = brain.user(brain.own.id)
    mine = {"authorization": f"Bearer {await brain.token(brain.own.id, 'member', sub=user, sid=None)}"}

    async def given() -> Any:
        found = (await call(brain, "GET", "consents", headers=mine))["data"]
        return next(one["given_at"] for one in found if one["server_id"] == made["id"])

    assert await given() is None
    told = await call(brain, "PUT", "consents", {"server_id": made["id"]}, headers=mine)
    assert told["given_at"] == await given() is not None
    await call(brain, "PUT", "consents", {"server_id": made["id"]}, 403)  # a key is nobody
    await call(brain, "PUT", "consents", {"server_id": brain.other.things["server_id"]}, 404, headers=mine)
    await call(brain, "DELETE", "consents", headers=mine, params={"server_id": made["id"]})
    assert await given() is None


# The service as a server of tools


@asynccontextmanager
async def client(brain: Whole, headers: dict[str, str], mode: Any = "auto") -> AsyncIterator[Client]:
    url = f"{brain.world.http.base_url}".rstrip("/") + "/mcp"
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode, cache=None) as made,
    ):
        yield made


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_question_is_asked_and_goes_on(brain: Whole, mode: str) -> None:
    async with client(brain, brain.owner_of(brain.own.id), mode) as asked:
        tools = {tool.name: tool for tool in (await asked.list_tools()).tools}
        assert set(tools) == {"ask", "search_conversations", "find_products"}
        assert tools["search_conversations"].annotations and tools["search_conversations"].annotations.read_only_hint
        first = await asked.call_tool("ask", {"message": "where is my parcel"})
        assert not first.is_error and first.structured_content
        told = first.structured_content
        assert first.content[0].text == told["reply"]  # type: ignore[union-attr]
        again = await asked.call_tool("ask", {"message": "and now", "conversation_id": told["conversation_id"]})
        assert again.structured_content and again.structured_content["conversation_id"] == told["conversation_id"]
    found = await brain.call("GET", f"conversations/{told['conversation_id']}/messages", brain.own.id)
    assert [one["role"] for one in found["data"]] == ["user", "assistant"] * 2


async def test_arguments_are_checked_and_other_tenants_are_unknown(brain: Whole) -> None:
    async with client(brain, brain.owner_of(brain.own.id)) as asked:
        for arguments in ({}, {"message": ""}, {"message": "hi", "colour": "red"}, {"message": "a\0b"}):
            assert (await asked.call_tool("ask", arguments)).is_error
        foreign = brain.other.things["conversation_id"]
        refused = await asked.call_tool("ask", {"message": "hi", "conversation_id": foreign})
        assert refused.is_error and "no such" in refused.content[0].text  # type: ignore[union-attr]
        found = await asked.call_tool("search_conversations", {"query": "parcel"})
        assert not found.is_error and found.structured_content is not None
        assert (await asked.call_tool("fly", {})).is_error


async def test_what_a_caller_may_not_do_is_not_offered_and_not_done(brain: Whole) -> None:
    reader = {"authorization": f"Bearer {brain.key(brain.own.id, 'read-only')}"}
    async with client(brain, reader) as asked:
        assert "ask" not in {tool.name for tool in (await asked.list_tools()).tools}
        refused = await asked.call_tool("ask", {"message": "hi"})
        assert refused.is_error and "messages:send" in refused.content[0].text  # type: ignore[union-attr]
    user = brain.user(brain.own.id)
    mine = {"authorization": f"Bearer {await brain.token(brain.own.id, 'member', sub=user, sid=None)}"}
    async with client(brain, mine) as asked:
        anothers = brain.own.things["conversation_id"]
        assert (await asked.call_tool("ask", {"message": "hi", "conversation_id": anothers})).is_error
        own = (await asked.call_tool("ask", {"message": "hi"})).structured_content
        assert own is not None
    made = await brain.call("GET", f"conversations/{own['conversation_id']}", brain.own.id)
    assert made["user_id"] == user


async def test_a_tenants_own_products_are_found(brain: Whole) -> None:
    for tenant, id, price in ((brain.own.id, "p1", 19.9), (brain.own.id, "p2", 70), (brain.other.id, "p3", 10)):
        body = {"title": "Scarlet anorak", "price": price, "currency": "USD", "stock": 3}
        await brain.call("PUT", f"catalog/products/{id}", tenant, body)
    async with client(brain, brain.owner_of(brain.own.id)) as asked:
        wanted = {"query": "scarlet anorak", "max_price": 50, "currency": "USD"}
        found = await asked.call_tool("find_products", wanted)
    assert [one.text for one in found.content] == ["p1: Scarlet anorak, 19.9 USD, in stock"]  # type: ignore[union-attr]


async def test_who_has_no_credential_is_told_where_to_get_one(brain: Whole) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    answer = await brain.world.http.post("/mcp", json=ping, headers={"authorization": "Bearer wrong"})
    assert answer.status_code == 401
    told = answer.headers["www-authenticate"]
    assert f'resource_metadata="{ISSUER}/.well-known/oauth-protected-resource/mcp"' in told
    for path in ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"):
        metadata = (await brain.world.http.get(path)).json()
        assert metadata["resource"] == f"{ISSUER}/mcp" and metadata["authorization_servers"] == [ISSUER]


async def test_a_page_of_another_origin_is_refused(brain: Whole) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {**brain.owner_of(brain.own.id), "accept": "application/json, text/event-stream"}
    evil = await brain.world.http.post("/mcp", json=ping, headers={**headers, "origin": "https://evil.example"})
    assert evil.status_code == 403
    base = brain.world.http.base_url
    own = await brain.world.http.post(
        "/mcp", json=ping, headers={**headers, "origin": f"http://{base.host}:{base.port}"}
    )
    assert own.status_code == 200 and own.json()["result"] == {}
    assert (await brain.world.http.get("/mcp", headers=headers)).status_code == 405


async def test_who_may_not_name_models_does_not_name_one_by_a_tool_either(brain: Whole) -> None:
    scopes = ["tools:read", "messages:send", "conversations:write", "conversations:any"]
    narrow = {"authorization": f"Bearer {brain.key(brain.own.id, 'owner', scopes)}"}
    async with client(brain, narrow) as asked:
        refused = await asked.call_tool("ask", {"message": "hi", "model": "small"})
        assert refused.is_error and "models:read" in str(refused.content)


async def test_what_a_url_holds_beside_its_path_is_for_those_who_set_it(brain: Whole) -> None:
    own, url = brain.own.id, "http://127.0.0.1:9/mcp"
    made = await call(brain, "POST", "servers", body(f"{url}?key=hunter2", consent="user"), 201)
    assert made["url"] == f"{url}?key=hunter2"
    await call(brain, "PATCH", f"servers/{made['id']}", {"url": f"{url}?key=hunter2&more"})
    member = {"authorization": f"Bearer {await brain.token(own, 'member')}"}
    assert (await call(brain, "GET", f"servers/{made['id']}", headers=member))["url"] == url
    for path in ("servers", "consents"):
        told = await call(brain, "GET", path, headers=member)
        assert made["id"] in str(told) and "hunter2" not in str(told)
    assert "hunter2" not in str(await brain.call("GET", f"admin/audit?subject={made['id']}", own))


async def test_what_is_no_json_is_refused_in_the_shape_of_every_error(brain: Whole) -> None:
    answer = await brain.world.http.post("/mcp", content=b"", headers=brain.owner_of(brain.own.id))
    assert answer.status_code == 415 and answer.json()["error"]["message"]
