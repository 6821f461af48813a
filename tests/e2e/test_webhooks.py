"""A conversation as a webhook sees it, and a message of a channel that is answered there, on a running Brain."""

import json
import time
from collections.abc import Iterator

import httpx
import pytest

from adapters.standard_webhooks import sign
from tests.conftest import wait_until
from tests.doubles.receiver import Receiver, receiving_beside
from tests.e2e.brain import Brain
from tests.storage.delivery_world import plain

pytestmark = pytest.mark.cluster


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving_beside() as found:
        yield found


def test_a_webhook_sees_a_conversation_in_order_with_its_texts(brain: Brain, receiver: Receiver) -> None:
    body = {"url": receiver.url, "events": ["conversation.*", "message.received", "turn.*"], "include_content": True}
    made = brain.http.post("/api/v1/webhooks", json=body)
    assert made.status_code == 201, made.text
    receiver.secrets.append(plain(made.json()["secret"]))
    path = f"/api/v1/webhooks/{made.json()['id']}"
    receiver.answers = [503]
    receiver.headers = {"retry-after": "1"}
    conversation = brain.conversation()
    for text in ("one", "two"):
        answer = brain.http.post(f"/api/v1/conversations/{conversation}/messages", json={"content": text})
        assert answer.status_code == 200, answer.text

    def seen() -> list[dict]:
        return [one.body for one in receiver.heard if one.body["partitionkey"] == conversation]

    wait_until(lambda: len(seen()) == 5, 60, what="the last event")
    types = ["conversation.created", "message.received", "turn.completed", "message.received", "turn.completed"]
    assert [one["type"] for one in seen()] == types
    told = [one["data"]["message"] for one in seen()[1:]]
    assert [one["role"] for one in told] == ["user", "assistant"] * 2
    assert [one["content"] for one in told][::2] == ["one", "two"]
    assert receiver.unsigned == 0

    def log() -> list[dict]:
        return list(brain.http.get(f"{path}/deliveries", params={"order": "asc"}).json()["data"])

    wait_until(lambda: all(one["status"] == "delivered" for one in log()), 30, what="the end of the last in the log")
    assert len(log()) >= 5 and sum(one["attempts"] for one in log()) == len(log()) + 1  # one answer was 503
    assert brain.http.delete(path).status_code == 200


def test_what_a_channel_posts_is_answered_there_once(brain: Brain, receiver: Receiver) -> None:
    body = {"kind": "webhook", "name": "shop", "settings": {"url": receiver.url}}
    made = brain.http.post("/api/v1/channels", json=body)
    assert made.status_code == 201, made.text
    channel, secret = made.json()["id"], plain(made.json()["secret"])
    receiver.secrets.append(secret)
    raw = json.dumps({"id": "m-1", "type": "message", "thread": "t-1", "user": "ann", "text": "hello"}).encode()

    def post(key: bytes = secret) -> httpx.Response:
        headers = sign([key], "w-1", int(time.time()), raw)
        return httpx.post(f"{brain.url}/api/v1/channels/{channel}/inbound", content=raw, headers=headers, timeout=30)

    assert post(b"x" * 32).status_code == 401
    first, second = post(), post()
    assert first.status_code == second.status_code == 200, first.text
    assert second.json() == {**first.json(), "duplicate": True}

    def heard(type: str) -> list[dict]:
        return [one.body for one in receiver.heard if one.body["type"] == type]

    [reply] = wait_until(lambda: heard("message"), 60, what="the reply")
    assert reply["thread"] == "t-1" and reply["message"]["role"] == "assistant" and reply["message"]["content"]
    [receipt] = heard("receipt")
    assert receipt["in_reply_to"] == "m-1" and receipt["message_id"] == first.json()["message_id"]
    messages = brain.http.get(f"/api/v1/conversations/{first.json()['conversation_id']}/messages").json()["data"]
    assert [one["role"] for one in messages] == ["user", "assistant"]
    assert brain.http.delete(f"/api/v1/channels/{channel}").status_code == 200
