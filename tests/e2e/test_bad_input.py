"""Bad input gets a clear error, and the service goes on."""

import uuid

import pytest

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def conversation(brain):
    return brain.conversation()


@pytest.fixture(autouse=True)
def goes_on(brain):
    yield
    assert brain.http.get("/health").status_code == 200


def post(brain, conversation, content, **headers):
    path = f"/api/v1/conversations/{conversation}/messages"
    return brain.http.post(path, content=content, headers={"content-type": "application/json", **headers})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"not json", 400),
        (b'{"content": "\xff\xfe"}', 400),
        (b'{"content": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
        (b"[]", 422),
        (b"null", 422),
        (b"{}", 422),
        (b'{"content": ""}', 422),
        (b'{"content": 5}', 422),
        (b'{"content": null}', 422),
        (b'{"content": "x", "unknown": 1}', 422),
        (b'{"content": "x", "stream": "perhaps"}', 422),
        (b'{"content": "x", "on_busy": "sometimes"}', 422),
        (b'{"content": "x", "parameters": {"temperature": 9}}', 422),
        (b'{"content": "x", "parameters": {"nonsense": 9}}', 422),
        (b'{"content": "' + b"x" * 32_001 + b'"}', 422),
        (b'{"content": "' + b"x" * 1_100_000 + b'"}', 413),
        (b'{"content": "x", "model": "no-such-model"}', 404),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_body_is_refused_clearly(brain, conversation, body, status):
    answer = post(brain, conversation, body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert answer.headers["x-request-id"]


def test_a_wrong_field_is_named(brain, conversation):
    error = post(brain, conversation, b'{"content": "x", "parameters": {"temperature": 9}}').json()["error"]
    assert "temperature" in error["param"]


def test_nothing_of_it_was_kept(brain, conversation):
    assert brain.messages(conversation) == []


@pytest.mark.parametrize(
    "path", ["conversations/nonsense", "conversations/conv_" + "0" * 32, "turns/x", "messages/%00"]
)
def test_a_malformed_or_unknown_id_is_404(brain, path):
    answer = brain.http.get(f"/api/v1/{path}")
    assert answer.status_code == 404 and answer.json()["error"]["message"]


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer wrong", "Basic eDp5", "Bearer " + "a" * 5000])
def test_without_a_valid_key_nothing_is_answered(brain, header):
    headers = {"Authorization": header} if header else {"Authorization": ""}
    answer = brain.http.get("/api/v1/conversations", headers=headers)
    assert answer.status_code == 401 and answer.json()["error"]["message"]


def test_unknown_routes_and_methods_have_the_same_shape(brain):
    assert brain.http.get("/api/v1/nothing").json()["error"]["message"]
    answer = brain.http.put("/api/v1/conversations")
    assert answer.status_code == 405 and answer.json()["error"]["message"]


def test_headers_that_serve_would_obey_are_stripped(brain, conversation):
    headers = {
        "x-request-timeout-seconds": "0.001",
        "x-request-disconnect-disabled": "?1",
        "x-session-id": "mine",
        "serve_multiplexed_model_id": "mine",
    }
    answer = brain.send(conversation, "hello", headers, model="mock,n=4,itl=30")
    assert answer.status_code == 200, answer.text


def test_a_request_id_is_kept_and_there_is_one(brain):
    own = f"req-{uuid.uuid4().hex}"
    answer = brain.http.get("/health", headers={"x-request-id": own})
    assert answer.headers.get_list("x-request-id") == [own]
    assert len(brain.http.get("/health").headers.get_list("x-request-id")) == 1


@pytest.mark.parametrize("limit", ["0", "101", "x", "-1"])
def test_a_page_has_bounds(brain, limit):
    assert brain.http.get("/api/v1/conversations", params={"limit": limit}).status_code == 422


def test_a_strange_resume_point_is_refused(brain):
    conversation = brain.conversation()
    turn = brain.send(conversation, "x", model="small").json()["turn"]["id"]
    for after in ("nonsense", "turn_x/1/1", f"{turn}/0/0", f"{turn}/1"):
        assert brain.http.get(f"/api/v1/turns/{turn}/events", headers={"Last-Event-ID": after}).status_code == 400


def test_what_is_in_front_adds_nothing_and_names_nobody(brain):
    answer = brain.http.get("/api/v1/conversations", headers={"x-forwarded-for": "203.0.113.9", "te": "trailers"})
    assert answer.status_code == 200
    assert "server" not in answer.headers
    for name in ("x-request-id", "content-security-policy", "x-content-type-options", "cache-control"):
        assert len(answer.headers.get_list(name)) == 1, name
