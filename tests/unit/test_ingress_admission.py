"""The gate in the API: what it refuses, and what it lets through all the same."""

import asyncio
import math
from collections.abc import AsyncIterator

import pytest

from serve_app.ingress.parts import IngressSettings
from tests.unit.ingress_world import Script, World, world


@pytest.fixture
async def brain(database_url: str, tenant: str) -> AsyncIterator[World]:
    async with world(database_url, tenant, IngressSettings(poll=0.01, admission_wait=0.5)) as made:
        yield made


def shut(brain: World, model: str) -> None:
    """Nobody is let in any more."""
    gate = brain.parts.admission._gates[model]
    gate._limit.value = 0.0
    gate._limit._heard = math.inf
    gate._tenants["others"] = gate.running = 1


async def test_over_the_limit_new_turns_and_completions_are_refused_and_reads_are_not(brain: World) -> None:
    conversation = await brain.conversation()
    assert (await brain.send(conversation, model="small")).status_code == 200
    shut(brain, "small")
    refused = await brain.send(conversation, model="small", stream=True)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    body = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
    for headers in ({}, {"x-conversation-id": conversation}):
        assert (await brain.http.post("/v1/chat/completions", json=body, headers=headers)).status_code == 429
    read = await brain.http.get(f"/api/v1/conversations/{conversation}/messages")
    assert len(read.json()["data"]) == 2, "a refused message is not kept"
    assert len(brain.hosts.sent) == 1


async def test_a_message_that_was_accepted_is_answered_when_it_comes_again(brain: World) -> None:
    conversation = await brain.conversation()
    first = await brain.send(conversation, headers={"idempotency-key": "k"}, model="small")
    shut(brain, "small")
    again = await brain.send(conversation, headers={"idempotency-key": "k"}, model="small")
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    assert again.json()["turn"]["id"] == first.json()["turn"]["id"]
    other = await brain.send(conversation, headers={"idempotency-key": "l"}, model="small")
    assert other.status_code == 429


async def test_waiting_behind_a_turn_of_the_same_conversation_is_no_overload(brain: World) -> None:
    conversation = await brain.conversation()
    assert (await brain.send(conversation, model="small")).status_code == 200
    measured: list[float] = []
    gate = brain.parts.admission._gates["small"]
    gate.first_text = measured.append  # type: ignore[method-assign]
    brain.hosts.script = Script(go=asyncio.Event())
    body = {"content": "hi", "model": "small", "stream": True}
    path, deadline = f"/api/v1/conversations/{conversation}/messages", asyncio.timeout(20)
    async with deadline, brain.http.stream("POST", path, json=body) as first:
        texts = first.aiter_text()
        assert "turn.accepted" in await anext(texts)
        async with brain.http.stream("POST", path, json=body) as second:
            later = second.aiter_text()
            assert "turn.accepted" in await anext(later)
            assert brain.hosts.script.go is not None
            for told in (later, texts):
                brain.hosts.script.go.set()
                while "message.delta" not in await anext(told):
                    continue
    assert len(measured) == 1, "the first one alone is a measure"
