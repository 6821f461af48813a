"""`GET /conversations/{id}/summary`."""

import uuid
from collections.abc import AsyncIterator

import pytest

from domain.context import Fact, Section, Summary
from domain.conversation import ConversationKey
from domain.ids import new_id
from serve_app.ingress.parts import IngressSettings
from storage.conversations import PostgresConversations
from tests.unit.ingress_world import World, world


@pytest.fixture
async def brain(database_url: str, tenant: str) -> AsyncIterator[World]:
    async with world(database_url, tenant, IngressSettings(poll=0.01)) as made:
        yield made


async def test_a_short_conversation_gets_a_summary_made_for_the_answer(brain: World) -> None:
    conversation = await brain.conversation()
    path = f"/api/v1/conversations/{conversation}/summary"
    empty = (await brain.http.get(path)).json()
    names = "object conversation_id summary facts up_to_seq made_by updated_at"
    assert list(empty) == names.split()
    assert (empty["object"], empty["conversation_id"]) == ("conversation.summary", conversation)
    assert (empty["summary"], empty["facts"], empty["up_to_seq"]) == ("", [], 0)
    await brain.send(conversation, "My name is Ada Quist and I like tea. How are you?")
    made = (await brain.http.get(path)).json()
    assert made["summary"].startswith("- User: My name is Ada Quist and I like tea.")
    assert made["facts"] == [
        {"key": "name", "value": "Ada Quist", "seq": 1},
        {"key": "likes", "value": "tea", "seq": 1},
    ]
    assert (made["up_to_seq"], made["made_by"]) == (2, "extractive") and made["updated_at"].endswith("Z")


async def test_the_stored_summary_is_answered_as_it_stands(brain: World) -> None:
    conversation = await brain.conversation()
    key, store = ConversationKey(brain.tenant, conversation), PostgresConversations(brain.pool)
    owner = (await store.activate(key, str(uuid.uuid4()))).ownership
    sections = (Section(1, 1, 2, "- a"), Section(3, 5, 6, "- b", "small"))
    await store.keep_summary(key, owner, Summary(sections, (Fact("name", "Ada", 1), Fact("name", "Bea", 3))))
    found = (await brain.http.get(f"/api/v1/conversations/{conversation}/summary")).json()
    assert (found["summary"], found["made_by"], found["up_to_seq"]) == ("- a\n- b", "small", 6)
    assert found["facts"] == [{"key": "name", "value": "Bea", "seq": 3}]


async def test_an_unknown_conversation_has_none(brain: World) -> None:
    for conversation in (new_id("conv"), "conv_zz"):
        assert (await brain.http.get(f"/api/v1/conversations/{conversation}/summary")).status_code == 404
