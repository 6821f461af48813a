"""A shop's visitor asks in a browser; the same conversation is seen over WebSocket, webhook and event stream."""

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from docs.examples.brain_ws import BrainSocket
from domain.ids import new_id
from tests.conftest import wait_until
from tests.doubles.receiver import Receiver, receiving_beside
from tests.e2e.brain import Brain
from tests.e2e.test_products import product
from tests.e2e.test_widget import PATIENCE, browser, picture, say  # noqa: F401  # `browser` is a fixture
from tests.pages import CHROMIUM
from tests.storage.delivery_world import plain

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]

SHIRTS = {
    "tee-red-m": product("red", "M", 24.9) | {"title": "Classic T-shirt, red", "group_id": "tee-red"},
    "tee-red-l": product("red", "L", 24.9) | {"title": "Classic T-shirt, red", "group_id": "tee-red"},
    "tee-silk-m": product("red", "M", 79) | {"title": "Silk T-shirt, red", "group_id": "tee-silk"},
    "tee-blue-m": product("blue", "M", 19) | {"title": "Classic T-shirt, blue", "group_id": "tee-blue"},
}
ASKED = "Do you have a red T-shirt under 50 dollars in size M?"


@pytest.fixture(scope="module")
def shop(brain: Brain) -> Iterator[httpx.Client]:
    """The owner of a tenant that has products and no language model."""
    made = brain.http.post("/api/v1/admin/tenants", json={"name": f"Shop {new_id('req')}"}).json()["id"]
    key = brain.http.post(f"/api/v1/admin/tenants/{made}/keys", json={"name": "owner", "role": "owner"}).json()["key"]
    owner = brain.client(key)
    owner.headers["x-key"] = key
    settings = {"default": "scripted", "allowed": ["scripted"]}
    assert owner.put(f"/api/v1/tenants/{made}/model-settings", json=settings).status_code == 200
    for id, one in SHIRTS.items():
        assert owner.put(f"/api/v1/catalog/products/{id}", json=one).status_code == 201
    yield owner
    brain.http.delete(f"/api/v1/admin/tenants/{made}")


class Listener(threading.Thread):
    """What a WebSocket hears of a conversation, until its turn has ended."""

    def __init__(self, brain: Brain, key: str, conversation: str) -> None:
        super().__init__(daemon=True)
        self._url, self._key, self._conversation = brain.url.replace("http", "ws", 1) + "/api/v1/ws", key, conversation
        self.subscribed = threading.Event()
        self.heard: list[dict[str, Any]] = []

    def run(self) -> None:
        asyncio.run(self._listen())

    async def _listen(self) -> None:
        async with BrainSocket(self._url, self._key) as socket, asyncio.timeout(120):
            await socket.subscribe(self._conversation)
            self.subscribed.set()
            async for frame in socket.frames():
                if frame["op"] == "event":
                    self.heard.append(frame["event"])
                    if frame["event"]["type"] == "turn.completed":
                        return


def test_a_visitor_gets_a_cited_answer_that_is_seen_everywhere(brain: Brain, shop: httpx.Client, browser) -> None:  # noqa: F811
    body = {"kind": "widget", "name": "page", "settings": {"origins": [], "title": "Ask the shop"}}
    widget = shop.post("/api/v1/channels", json=body).json()["id"]
    page = browser.new_context().new_page()
    page.goto(f"{brain.url}/widget/{widget}")
    page.get_by_text("How can we help?").wait_for(timeout=PATIENCE)

    def conversations() -> list[str]:
        return [one["id"] for one in shop.get("/api/v1/conversations").json()["data"]]

    [conversation] = wait_until(conversations, 20, what="the visitor's conversation")
    listener = Listener(brain, shop.headers["x-key"], conversation)
    listener.start()
    with receiving_beside() as receiver:
        hook = {"url": receiver.url, "events": ["turn.completed"], "include_content": True}
        made = shop.post("/api/v1/webhooks", json=hook).json()
        receiver.secrets.append(plain(made["secret"]))
        assert listener.subscribed.wait(20)
        say(page, ASKED)
        page.locator(".message.assistant:not(.waiting)").wait_for(timeout=PATIENCE)
        picture(page, "shirts")
        page.locator(".citations a").first.wait_for(timeout=PATIENCE)
        answer = page.locator(".message.assistant").inner_text()
        assert "Classic T-shirt, red" in answer and "24.9" in answer
        assert "Silk" not in answer and "blue" not in answer
        links = [one.get_attribute("href") for one in page.locator(".citations a").all()]
        assert links == ["https://shop.example/jersey-red-M"]
        _everywhere(shop, conversation, answer, listener, receiver)
    page.context.close()


def _everywhere(shop: httpx.Client, conversation: str, answer: str, listener: Listener, receiver: Receiver) -> None:
    listener.join(60)
    [completed] = [event for event in listener.heard if event["type"] == "turn.completed"]
    assert completed["message"]["content"] == answer
    assert "".join(event["text"] for event in listener.heard if event["type"] == "message.delta") == answer
    heard = wait_until(lambda: [one.body for one in receiver.heard], 60, what="the webhook")
    assert heard[0]["data"]["message"]["content"] == answer and receiver.unsigned == 0

    def told() -> list[dict[str, Any]]:
        since = (datetime.now(UTC) - timedelta(minutes=5)).isoformat().replace("+00:00", "Z")
        query = {"since": since, "seconds": 1, "include": "message", "conversation_id": conversation}
        with shop.stream("GET", "/api/v1/events", params={**query, "topics": "turn.completed"}) as stream:
            return [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]

    [event] = wait_until(told, 60, what="the event")
    assert event["id"] == heard[0]["id"] and event["data"]["message"]["content"] == answer
