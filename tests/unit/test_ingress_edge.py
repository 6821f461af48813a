"""The edge: heads, hosts, proxies, browsers, slow bodies."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from serve_app.edge_rules import EdgeRules, Proxies, hosts, networks, origins
from serve_app.ingress.heads import Head
from serve_app.ingress.middleware import Around
from serve_app.ingress.parts import IngressSettings
from serve_app.settings import Settings
from tests.unit.ingress_world import KEY, World, serving, world

APP = "https://app.example.com"
ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


@pytest.fixture
async def brain(database_url: str, tenant: str) -> AsyncIterator[World]:
    edge = EdgeRules(origins=(APP,), hosts=hosts("127.0.0.1,*.brain.example"), hsts=60, body_wait=0.3)
    async with world(database_url, tenant, IngressSettings(poll=0.01, edge=edge)) as made:
        yield made


async def seen(scope: dict[str, Any], rules: EdgeRules | None = None) -> dict[str, Any]:
    """What an application behind the edge gets of a request; `refused`: its status where the edge answers itself."""
    found: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.update(headers=scope["headers"], client=scope["brain.visit"].client)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start" and message["status"] != 204:
            found["refused"] = message["status"]

    around = Around(app, IngressSettings(edge=rules or EdgeRules()))
    whole = {"type": "http", "method": "GET", "path": "/x", "raw_path": b"/x", "query_string": b"", **scope}
    await around(whole, receive, send)  # type: ignore[arg-type]
    return found


async def test_every_answer_carries_the_headers_that_browsers_heed(brain: World) -> None:
    answers = [
        await brain.http.get("/health"),
        await brain.http.get("/nowhere"),
        await brain.http.get("/api/v1/conversations", headers={"authorization": ""}),
        await brain.http.post("/api/v1/conversations", content=b"x" * (1024 * 1024 + 1)),
        await brain.http.get("/health/detailed", headers={"host": "elsewhere.example"}),
        await brain.http.get("/metrics"),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 401, 413, 400, 200]
    for answer in answers:
        assert {name: answer.headers.get_list(name) for name in ALWAYS} == {name: [v] for name, v in ALWAYS.items()}
        assert answer.headers["strict-transport-security"] == "max-age=60; includeSubDomains"
        assert "x-request-id" in answer.headers


async def test_hsts_is_told_by_setting_alone(database_url: str, tenant: str) -> None:
    async with world(database_url, tenant, IngressSettings()) as made:
        answer = await made.http.get("/health", headers={"origin": APP})
    assert "strict-transport-security" not in answer.headers
    assert not any(name.startswith("access-control") for name in answer.headers), "no page may ask by default"


async def test_the_pages_of_a_named_origin_may_ask(brain: World) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    preflight = await brain.http.options("/api/v1/conversations", headers={"origin": APP, **asked})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == APP
    assert preflight.headers["access-control-max-age"] == "600"
    assert "access-control-allow-credentials" not in preflight.headers
    refused = await brain.http.get("/api/v1/conversations", headers={"origin": APP, "authorization": ""})
    too_large = await brain.http.post("/v1/embeddings", content=b"x" * (1024 * 1024 + 1), headers={"origin": APP})
    for answer in (refused, too_large):
        assert answer.headers["access-control-allow-origin"] == APP, "else the page could not read the error"
        assert "retry-after" in answer.headers["access-control-expose-headers"]
        assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "origin", ["https://app.example.com.evil.example", "http://app.example.com", "https://app.example.com:444", "null"]
)
async def test_no_other_page_may_ask(brain: World, origin: str) -> None:
    asked = {"origin": origin, "access-control-request-method": "POST"}
    preflight = await brain.http.options("/api/v1/conversations", headers=asked)
    assert preflight.status_code == 400
    simple = await brain.http.get("/health", headers={"origin": origin})
    for answer in (preflight, simple):
        assert "access-control-allow-origin" not in answer.headers


async def test_only_its_own_names_are_answered(brain: World) -> None:
    for host in ("api.brain.example", "API.brain.example:8000", "a.b.brain.example", "127.0.0.1:1", "127.0.0.1"):
        assert (await brain.http.get("/metrics", headers={"host": host})).status_code == 200, host
    for host in ("brain.example.evil.example", "brain.example", "evilbrain.example", "", "127.0.0.1.evil.example"):
        answer = await brain.http.get("/metrics", headers={"host": host})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_host"), host
        assert (await brain.http.get("/health/ready", headers={"host": host})).status_code == 200, "a load balancer's"


async def test_a_head_too_large_is_refused_before_anything_is_looked_up(brain: World) -> None:
    answer = await brain.http.get("/health", headers={"x-filler": "x" * 33_000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (431, "head_too_large")
    answer = await brain.http.get("/health", headers={f"x-{number}": "1" for number in range(100)})
    assert answer.status_code == 431
    answer = await brain.http.get("/api/v1/messages/search", params={"q": "x" * 9_000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (414, "uri_too_long")


async def test_a_body_that_comes_too_slowly_is_408(brain: World) -> None:
    address = brain.url.removeprefix("http://").split(":")
    head = f"POST /api/v1/conversations HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\n"
    for kind in ("content-length: 100\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"):
        reader, writer = await asyncio.open_connection(*address)
        writer.write((head + kind).encode())
        answer = (await asyncio.wait_for(reader.read(), 20)).decode()  # to the end: the connection is closed
        assert answer.startswith("HTTP/1.1 408 "), answer
        assert '"code":"body_too_slow"' in answer
        writer.close()


async def test_a_stream_is_not_ended_by_the_time_that_a_body_may_take(brain: World) -> None:
    brain.hosts.script.go = asyncio.Event()
    conversation = await brain.conversation()
    asked = asyncio.create_task(
        brain.events(f"/api/v1/conversations/{conversation}/messages", body={"content": "x", "stream": True})
    )
    done, _ = await asyncio.wait((asked,), timeout=0.7)
    assert not done
    brain.hosts.script.go.set()
    assert "turn.completed" in (await asked)[-1]


async def test_headers_of_the_neighbour_do_not_reach_a_route() -> None:
    given = [(b"host", b"a"), (b"connection", b"close, X-Secret-Hop, authorization"), (b"x-secret-hop", b"1")]
    given += [(b"te", b"trailers"), (b"keep-alive", b"1"), (b"proxy-authorization", b"x"), (b"authorization", b"k")]
    found = await seen({"headers": given})
    assert [name for name, _ in found["headers"]] == [b"host", b"connection", b"authorization"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client", "kept"),
    [
        ("203.0.113.9", ["10.0.0.1"], "203.0.113.9", False),
        ("127.0.0.1", ["198.51.100.7"], "198.51.100.7", True),
        ("127.0.0.1", ["6.6.6.6, 198.51.100.7", "10.1.2.3"], "198.51.100.7", True),
        ("::ffff:10.1.2.3", ["198.51.100.7"], "198.51.100.7", True),
        ("10.1.2.3", ["198.51.100.7, unknown"], "10.1.2.3", True),
        ("10.1.2.3", ["10.9.9.9"], "10.9.9.9", True),
    ],
)
async def test_only_a_proxy_of_ours_says_for_whom_it_asks(
    peer: str, forwarded: list[str], client: str, kept: bool
) -> None:
    rules = EdgeRules(proxies=Proxies(networks("127.0.0.0/8,10.0.0.0/8")))
    headers = [(b"x-forwarded-for", one.encode()) for one in forwarded]
    headers += [(b"x-forwarded-proto", b"https"), (b"forwarded", b"for=1.1.1.1"), (b"x-real-ip", b"1.1.1.1")]
    found = await seen({"headers": headers, "client": (peer, 1)}, rules)
    assert found["client"] == client
    assert bool(found["headers"]) is kept


async def test_a_length_of_any_size_is_read() -> None:
    assert (await seen({"headers": [(b"content-length", b"9" * 5000)]}))["refused"] == 413
    assert (await seen({"headers": [(b"content-length", b"1e9")]})).get("refused") is None


async def test_two_hosts_in_one_request_are_refused() -> None:
    assert (await seen({"headers": [(b"host", b"a"), (b"host", b"b")]}))["refused"] == 400


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, True),
        ({"origin": "http://127.0.0.1:9"}, True),
        ({"origin": APP}, True),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "http://127.0.0.1:10"}, False),
        ({"host": "evil.example", "origin": "http://evil.example"}, False),
    ],
)
async def test_a_page_of_another_origin_opens_no_websocket(headers: dict[str, str], passes: bool) -> None:
    sent: list[Any] = []
    reached: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(True)

    async def send(message: Any) -> None:
        sent.append(message.get("status"))

    around = Around(app, IngressSettings(edge=EdgeRules(origins=(APP,), hosts=hosts("127.0.0.1"))), app)
    given = {"host": "127.0.0.1:9", **headers}
    scope = {"type": "websocket", "path": "/api/v1/ws", "headers": [(n.encode(), v.encode()) for n, v in given.items()]}
    await around(scope, send, send)  # type: ignore[arg-type]
    assert (reached, sent) == (([True], []) if passes else ([], [403, None]))


async def test_the_page_of_documents_needs_no_other_site_and_no_script_in_its_text(brain: World) -> None:
    page = await brain.http.get("/docs")
    assert page.status_code == 200
    policy = page.headers.get_list("content-security-policy")
    assert len(policy) == 1
    assert "script-src 'self'" in policy[0] and "unsafe" not in policy[0] and "frame-ancestors 'none'" in policy[0]
    named = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert len(named) == 4
    for one in named:
        assert "//" not in one
        answer = await brain.http.get("/" + one)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=86400"
    assert re.findall(r"<script[^>]*>([^<]+)</script>", page.text) == []
    for other in ("/docs/page.html", "/docs/..%2f__init__.py", "/docs/redoc.standalone.js"):
        assert (await brain.http.get(other)).status_code == 404


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (origins, "*"),
        (origins, "https://*.example.com"),
        (origins, "https://app.example.com/"),
        (origins, "app.example.com"),
        (origins, "https://user@app.example.com"),
        (origins, "HTTPS://app.example.com"),
        (origins, "null"),
        (hosts, "api.example.com:8000"),
        (hosts, "https://api.example.com"),
        (networks, "10.0.0.1/8"),
        (networks, "proxy.internal"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_at_the_start(
    parse: Callable[[str], Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError):
        parse(text)
    variables = {origins: "CORS_ORIGINS", hosts: "ALLOWED_HOSTS", networks: "TRUSTED_PROXIES"}
    monkeypatch.setenv(f"BRAIN_{variables[parse]}", text)
    with pytest.raises(ValidationError):
        Settings()


def test_the_settings_make_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().edge == EdgeRules()
    monkeypatch.setenv("BRAIN_CORS_ORIGINS", f"{APP}, http://localhost:3000")
    monkeypatch.setenv("BRAIN_ALLOWED_HOSTS", "API.example.com")
    monkeypatch.setenv("BRAIN_HSTS_S", "31536000")
    edge = Settings().edge
    assert (edge.origins, edge.hosts, edge.hsts) == ((APP, "http://localhost:3000"), {"api.example.com"}, 31_536_000)


names = st.sampled_from(
    [b"host", b"te", b"connection", b"x-forwarded-for", b"forwarded", b"x-request-id", b"x-a", b"authorization"]
)


@given(st.lists(st.tuples(names, st.binary(max_size=20)), max_size=12), st.sampled_from(["127.0.0.1", "8.8.8.8", ""]))
def test_no_head_trips_the_edge(headers: list[tuple[bytes, bytes]], peer: str) -> None:
    scope = {"headers": headers, "client": (peer, 1), "path": "/x", "raw_path": b"/x", "query_string": b""}
    rules = EdgeRules(hosts=hosts("a"))
    head = Head(scope, rules)
    head.refusal(scope, rules)
    assert set(head.headers) <= set(headers)
    assert not {b"te"} & {name for name, _ in head.headers}
    kept = [one for one in headers if one[0] == b"authorization"]
    assert [one for one in head.headers if one[0] == b"authorization"] == kept
    if not rules.proxies.hold(peer):
        assert head.visit.client == peer
        assert not {b"x-forwarded-for", b"forwarded"} & {name for name, _ in head.headers}


async def test_the_limit_of_a_body_is_exact() -> None:
    async with serving(Around(_echo, IngressSettings(max_body=10))) as url, httpx.AsyncClient() as http:
        assert (await http.post(url, content=b"x" * 10)).status_code == 200
        assert (await http.post(url, content=b"x" * 11)).status_code == 413


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        continue
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def test_more_requests_than_may_be_answered_at_once_are_refused() -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        entered.set()
        await release.wait()

    async def ask(around: Around) -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message.get("status"))

        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
        await around(scope, send, send)  # type: ignore[arg-type]
        return sent

    around = Around(app, IngressSettings(max_requests=1))
    first = asyncio.create_task(ask(around))
    await entered.wait()
    assert (await ask(around))[0] == 503
    release.set()
    assert await first == []
    assert await ask(around) == [], "there is room again"
