"""Errors have one shape wherever they arise, and name what is wrong."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from ray.serve._private.http_util import RequestIdMiddleware

from domain.errors import CommitUnknown, Overloaded, Unavailable
from domain.tenant import Caller
from serve_app.ingress.app import create_app
from serve_app.ingress.callers import ABSENT, FRESH, STALE, Callers
from serve_app.ingress.edge import middlewares
from serve_app.ingress.parts import IngressSettings
from tests.unit.ingress_world import World, serving, world


@pytest.fixture
async def brain(database_url: str, tenant: str) -> AsyncIterator[World]:
    async with world(database_url, tenant, IngressSettings(version="1.2.3", poll=0.01)) as made:
        yield made


def error_of(answer: httpx.Response) -> dict[str, object]:
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.headers.get_list("x-request-id")) == 1
    body = answer.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    return body["error"]


async def test_a_missing_or_wrong_key_is_401_and_says_how_to_sign_in(brain: World) -> None:
    for headers in ({"authorization": ""}, {"authorization": "Bearer nobody"}, {"authorization": "Basic x"}):
        for path in ("/api/v1/conversations", "/v1/models", "/health/detailed"):
            answer = await brain.http.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            error_of(answer)
    answer = await brain.http.post("/v1/chat/completions", content=b"{", headers={"authorization": ""})
    assert answer.status_code == 401, "before the body is looked at"


async def test_unknown_routes_and_methods_have_the_shape_of_every_error(brain: World) -> None:
    assert error_of(await brain.http.get("/nowhere"))["code"] == "not_found"
    answer = await brain.http.put("/api/v1/conversations")
    assert (answer.status_code, error_of(answer)["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, POST"
    answer = await brain.http.post(f"/api/v1/messages/msg_{'0' * 32}/feedback")
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, PUT")


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"nonsense", b'"\xff"', b'{"content": "\xff\xfe"}', b'{"content": "\\ud800"}', b"[" * 100_000, b"NaN"],
)
async def test_what_is_no_json_is_400(brain: World, body: bytes) -> None:
    conversation = await brain.conversation()
    for path in (f"/api/v1/conversations/{conversation}/messages", "/v1/chat/completions"):
        answer = await brain.http.post(path, content=body)
        assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_json")


async def test_json_nested_too_deeply_is_400_not_500(brain: World) -> None:
    for depth in (70, 300, 900):
        body = b'{"metadata":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
        answer = await brain.http.post("/api/v1/conversations", content=body)
        assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "content"),
        ({"content": ""}, "content"),
        ({"content": "x" * 32_001}, "content"),
        ({"content": 5}, "content"),
        ({"content": "nul \0 inside"}, "content"),
        ({"content": "x", "metadata": {"a": ["\0"]}}, "metadata"),
        ({"content": "x", "colour": "red"}, "colour"),
        ({"content": "x", "stream": "yes"}, "stream"),
        ({"content": "x", "on_busy": "wait"}, "on_busy"),
        ({"content": "x", "parameters": {"temperature": 3}}, "parameters.temperature"),
        ({"content": "x", "parameters": {"logprobs": True}}, "parameters.logprobs"),
        ([], None),
    ],
)
async def test_a_wrong_field_is_422_and_named(brain: World, body: object, param: str | None) -> None:
    conversation = await brain.conversation()
    answer = await brain.http.post(f"/api/v1/conversations/{conversation}/messages", json=body)
    assert (answer.status_code, error_of(answer)["param"]) == (422, param)
    assert brain.hosts.sent == []


async def test_the_longest_content_is_taken(brain: World) -> None:
    assert (await brain.send(await brain.conversation(), "ü" * 32_000)).status_code == 200


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "order=up", "status=open", "user_id=%00"])
async def test_a_wrong_query_is_422_and_named(brain: World, query: str) -> None:
    answer = await brain.http.get(f"/api/v1/conversations?{query}")
    assert (answer.status_code, error_of(answer)["param"]) == (422, query.partition("=")[0])


async def test_malformed_and_unknown_ids_are_404(brain: World) -> None:
    for conversation in ("conv_1", "x", "turn_" + "0" * 32, "conv_" + "0" * 32, "conv_%00"):
        for path in ("", "/messages", "/metrics", "/export"):
            answer = await brain.http.get(f"/api/v1/conversations/{conversation}{path}")
            assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")
        assert (await brain.send(conversation)).status_code == 404
    for path in ("messages/msg_1", "turns/turn_1", "turns/turn_1/events", f"turns/turn_{'0' * 32}/trace"):
        assert error_of(await brain.http.get(f"/api/v1/{path}"))["code"] == "not_found"
    answer = await brain.http.get("/api/v1/conversations", params={"after": "conv_?"})
    assert answer.status_code == 404


async def test_a_body_over_the_limit_is_413_also_without_its_length(brain: World) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 50_000

    for content in (b"x" * (1024 * 1024 + 1), pieces()):
        answer = await brain.http.post("/api/v1/conversations", content=content)
        assert (answer.status_code, error_of(answer)["code"]) == (413, "body_too_large")


async def test_the_clients_request_id_comes_back_if_it_is_sane(brain: World) -> None:
    answer = await brain.http.get("/health", headers={"x-request-id": "my-Id.1_x"})
    assert answer.headers.get_list("x-request-id") == ["my-Id.1_x"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    for bad in ("a b", "x" * 129, "é".encode(), "<script>"):
        answer = await brain.http.get("/health", headers={"x-request-id": bad})
        assert answer.headers["x-request-id"].startswith("req_")


async def test_retryable_errors_say_when_to_come_again(brain: World) -> None:
    conversation = await brain.conversation()
    for refusal, status in ((Unavailable("away"), 503), (Overloaded("full"), 429)):
        brain.hosts.refusal = refusal
        answer = await brain.send(conversation)
        assert (answer.status_code, error_of(answer)["message"]) == (status, str(refusal))
        assert int(answer.headers["retry-after"]) > 0
        assert "x-should-retry" not in answer.headers


async def test_an_error_after_acceptance_says_that_nobody_should_send_again(brain: World) -> None:
    conversation = await brain.conversation()
    send = brain.hosts.send

    async def lost_after(command: object) -> object:
        await send(command)  # type: ignore[arg-type]
        raise CommitUnknown("who knows")

    brain.hosts.send = lost_after  # type: ignore[method-assign,assignment]
    answer = await brain.send(conversation)
    assert answer.status_code == 503
    assert answer.headers["x-should-retry"] == "false"
    assert error_of(answer)["param"] == brain.hosts.sent[0].turn_id


async def test_an_unforeseen_error_is_500_without_details(brain: World, capfd: pytest.CaptureFixture[str]) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("secret text of a user")

    brain.hosts.change = broken  # type: ignore[method-assign,assignment]
    conversation = await brain.conversation()
    answer = await brain.http.patch(f"/api/v1/conversations/{conversation}", json={"title": "secret text of a user"})
    assert (answer.status_code, error_of(answer)["code"]) == (500, "internal_error")
    logged = capfd.readouterr().err
    assert "RuntimeError" in logged
    assert "secret" not in logged
    assert "secret" not in answer.text


async def test_keys_are_remembered_and_outlive_an_outage() -> None:
    now, found, asked = 0.0, Caller("ten", "key"), 0

    async def find(key: str) -> Caller | None:
        nonlocal asked
        asked += 1
        if found is None:
            raise Unavailable
        return found if key == "good" else None

    keys = Callers(find, now=lambda: now)
    assert [await keys.caller("good") for _ in range(3)] == [found] * 3
    assert await asyncio.gather(*(keys.caller("bad") for _ in range(5))) == [None] * 5
    assert asked == 2, "equal questions at one time are one question"
    now = ABSENT
    await keys.caller("bad")
    assert asked == 3
    known, found = found, None
    now = FRESH
    assert await keys.caller("good") == known
    now = STALE
    with pytest.raises(Unavailable):
        await keys.caller("good")


async def test_health_and_metrics(brain: World) -> None:
    assert (await brain.http.get("/health")).json() == {"status": "ok", "version": "1.2.3"}
    brain.parts.ready = lambda: False
    unready = await brain.http.get("/health/ready")
    assert (unready.status_code, error_of(unready)["type"]) == (503, "service_unavailable")
    assert (await brain.http.get("/health/live")).status_code == 200

    async def down() -> None:
        raise OSError("password=hunter2")

    brain.parts.vitals._checks = {**brain.parts.checks, "redis": down}
    detailed = (await brain.http.get("/health/detailed")).json()
    assert detailed["status"] == "degraded"
    assert detailed["components"]["postgres"]["status"] == "ok"
    assert detailed["components"]["postgres"]["latency_ms"] > 0
    assert detailed["components"]["redis"]["last_error"]["message"] == "OSError"
    page = (await brain.http.get("/metrics")).text
    assert 'brain_http_requests_total{method="GET",route="/health/ready",status="503"}' in page


async def test_the_document_describes_bodies_and_errors(brain: World) -> None:
    document = (await brain.http.get("/openapi.json")).json()
    send = document["paths"]["/api/v1/conversations/{conversation_id}/messages"]["post"]
    assert send["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/MessageSend"}
    schemas = document["components"]["schemas"]
    assert {"MessageSend", "Parameters", "TurnAnswer", "Turn", "Message", "Error", "ChatCompletion"} <= set(schemas)
    assert send["responses"]["default"]["content"]["application/json"]["schema"]["$ref"].endswith("/Error")
    assert (await brain.http.get("/docs")).status_code == 200


async def test_behind_serve_there_is_one_request_id_and_no_header_that_serve_obeys(brain: World) -> None:
    settings = IngressSettings(server_adds_request_id=True)
    brain.parts.settings = settings
    seen: list[dict[str, str]] = []
    inner = create_app(brain.parts)

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        seen.append({name.decode(): value.decode() for name, value in scope.get("headers", ())})
        await inner(scope, receive, send)

    (outermost,) = middlewares()
    async with serving(outermost.cls(RequestIdMiddleware(noting))) as url, httpx.AsyncClient() as http:
        for given in ("mine", "not sane", None):
            headers = {"x-request-timeout-seconds": "1", "X-Session-Id": "a", "serve_multiplexed_model_id": "b"}
            headers |= {"x-request-id": given} if given else {}
            answer = await http.get(f"{url}/health", headers=headers)
            (request_id,) = answer.headers.get_list("x-request-id")
            assert request_id == "mine" if given == "mine" else request_id.startswith("req_")
            assert not {"x-request-timeout-seconds", "x-session-id", "serve_multiplexed_model_id"} & set(seen[-1])
