"""Visits of a web widget, as its page asks for them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from serve_app.ingress import widget_sessions
from tests.conftest import make_database
from tests.unit.whole_world import Whole, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def brain(postgres_folder: Path, redis_url: str, tmp_path_factory: Any) -> AsyncIterator[Whole]:
    async with whole(make_database(postgres_folder), tmp_path_factory.mktemp("whole"), redis_url) as made:
        yield made


async def test_a_visitor_cannot_begin_conversations_without_end(brain: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widget_sessions, "BY_ADDRESS", 3)
    monkeypatch.setattr(widget_sessions, "RETURNS", 2)
    settings = {"origins": ["https://shop.example"]}
    body = {"kind": "widget", "name": "shop", "settings": settings}
    owner = brain.owner_of(brain.own.id)
    made = await brain.world.http.post("/api/v1/channels", json=body, headers=owner)
    assert made.status_code == 201, made.text
    path, token = f"/api/v1/widgets/{made.json()['id']}/sessions", None
    conversations = set()
    for _ in range(3):
        answer = await brain.world.http.post(path, json={"refresh_token": token, "anew": True})
        assert answer.status_code == 201, answer.text
        token = answer.json()["refresh_token"]
        conversations.add(answer.json()["conversation_id"])
    assert len(conversations) == 3
    refused = await brain.world.http.post(path, json={"refresh_token": token, "anew": True})
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
    for status in (201, 201, 429):  # the refused visit goes on with its token
        answer = await brain.world.http.post(path, json={"refresh_token": token})
        assert answer.status_code == status, answer.text
        token = answer.json().get("refresh_token")
