"""Limits as callers meet them: what answers tell, what is refused, and what a turn gives back when it has ended."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest

from domain.errors import JournalUnavailable, NotFound, Overloaded, Unavailable
from domain.generation import Outcome
from domain.ids import new_id
from domain.limits import UNLIMITED, Limits
from domain.tenant import Caller
from serve_app.ingress import limiting
from serve_app.ingress.limiter import Limiter
from serve_app.ingress.parts import IngressSettings
from storage.limits import RedisLimits
from storage.redis import open_redis
from tests.unit.ingress_world import USAGE, Script, World, world

BODY = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
PREFIX = "x-ratelimit-"


class Set:
    """`TenantLimits` that a test sets; every world has a bucket of its own."""

    def __init__(self) -> None:
        self.value = UNLIMITED

    async def limits(self, tenant: str) -> Limits:
        return self.value


class Counting(RedisLimits):
    """Notes what is asked of Redis."""

    asked: list[str]

    def _script(self, name, buckets, *args):
        self.asked.append(name)
        return super()._script(name, [f"{self.run}:{bucket}" for bucket in buckets], *args)


@pytest.fixture
async def brain(database_url: str, tenant: str, redis_url: str) -> AsyncIterator[World]:
    async with world(database_url, tenant, IngressSettings(poll=0.01)) as made:
        shared = Counting(open_redis(redis_url))
        shared.asked, shared.run = [], uuid.uuid4().hex
        made.parts.limiter = Limiter(Set(), shared)
        yield made
        await made.parts.limiter.close()


def limits(brain: World, **fields) -> None:
    brain.parts.limiter.tenants.value = Limits.model_validate(fields)


def asked(brain: World) -> list[str]:
    return brain.parts.limiter.shared.asked


def told(answer: httpx.Response) -> dict[str, int]:
    return {name.removeprefix(PREFIX): int(value) for name, value in answer.headers.items() if name.startswith(PREFIX)}


async def until(condition, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_who_has_no_limits_is_told_of_none_and_costs_redis_nothing(brain: World) -> None:
    conversation = await brain.conversation()
    answer = await brain.send(conversation)
    assert told(answer) == {} and answer.status_code == 200
    assert (await brain.http.post("/v1/chat/completions", json=BODY)).status_code == 200
    assert asked(brain) == []


async def test_answers_tell_what_is_left_and_over_it_requests_are_refused(brain: World) -> None:
    limits(brain, requests_per_minute=3)
    for left in (2, 1, 0):
        answer = await brain.http.get("/api/v1/conversations")
        assert answer.status_code == 200
        assert told(answer) == {
            "limit-requests": 3,
            "remaining-requests": left,
            "reset-requests": pytest.approx(20 * (3 - left), abs=1),
        }
    refused = await brain.http.get("/api/v1/conversations")
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert told(refused)["remaining-requests"] == 0
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limited")
    assert "this tenant's limit of 3 requests a minute" in error["message"]
    assert refused.headers["x-request-id"]
    unknown = await brain.http.get("/api/v1/conversations", headers={"authorization": "Bearer nobody"})
    assert unknown.status_code == 401 and told(unknown) == {}
    assert (await brain.http.get("/health")).status_code == 200


async def test_requests_that_fail_count_too(brain: World) -> None:
    limits(brain, requests_per_minute=2)
    conversation = await brain.conversation()
    assert (await brain.http.post(f"/api/v1/conversations/{conversation}/messages", content=b"{")).status_code == 400
    refused = await brain.http.post(f"/api/v1/conversations/{conversation}/messages", content=b"{")
    assert refused.status_code == 429


async def test_the_narrowest_limit_is_told_and_named(brain: World) -> None:
    limits(brain, requests_per_minute=100, per_key={"requests_per_minute": 1})
    assert told(await brain.http.get("/api/v1/conversations"))["limit-requests"] == 1
    refused = await brain.http.get("/api/v1/conversations")
    assert "this key's limit of 1 requests a minute" in refused.json()["error"]["message"]


async def test_one_request_is_one_round_trip_and_a_turn_one_more_at_its_end(brain: World) -> None:
    conversation = await brain.conversation()
    every = {"requests_per_minute": 100, "tokens_per_minute": 10_000, "concurrent_turns": 5}
    limits(brain, **every, per_user=every, per_key=every)
    assert (await brain.http.get("/api/v1/conversations")).status_code == 200
    assert asked(brain) == ["limits"]
    assert (await brain.send(conversation)).status_code == 200
    assert asked(brain) == ["limits", "limits", "limits_settle"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_tokens_are_those_that_the_turn_used(brain: World, streamed: bool) -> None:
    conversation = await brain.conversation()
    limits(brain, tokens_per_minute=1000)
    body = {"content": "long " * 200, "stream": streamed, "model": "small"}
    answer = await brain.http.post(f"/api/v1/conversations/{conversation}/messages", json=body)
    assert answer.status_code == 200
    assert told(answer)["remaining-tokens"] == pytest.approx(1000 - 1040 // 4, abs=10), "a guess by the body's length"
    after = told(await brain.http.post("/v1/embeddings", json={"model": "auto", "input": "a b c d"}))
    assert after["remaining-tokens"] >= 1000 - USAGE.total_tokens - 15


@pytest.mark.parametrize("streamed", [False, True])
async def test_completions_of_which_nothing_is_kept_are_counted_too(brain: World, streamed: bool) -> None:
    limits(brain, tokens_per_minute=1000, concurrent_turns=1)
    brain.model.outcome = Outcome("completed", "Hello", "small", "stop", USAGE.model_copy(update={"total_tokens": 700}))
    for left in (960, 260):
        answer = await brain.http.post("/v1/chat/completions", json={**BODY, "stream": streamed})
        assert answer.status_code == 200, answer.text
        assert left <= told(answer)["remaining-tokens"] < left + 300, "17 a second come back"
    third = await brain.http.post("/v1/chat/completions", json={**BODY, "stream": streamed})
    assert third.status_code == 429 and "1000 tokens a minute" in third.json()["error"]["message"]


async def test_a_turn_that_was_never_begun_takes_no_tokens_and_no_place(brain: World) -> None:
    conversation = await brain.conversation()
    limits(brain, tokens_per_minute=1000, concurrent_turns=1)
    brain.hosts.refusal = Overloaded()
    for _ in range(3):
        refused = await brain.send(conversation, "word " * 150)
        assert refused.json()["error"]["code"] == "overloaded"
        await until(lambda: not brain.parts.limiter.live)
    brain.hosts.refusal = Unavailable()
    assert (await brain.send(conversation)).status_code == 503
    await until(lambda: not brain.parts.limiter.live)
    brain.hosts.refusal = None
    assert told(await brain.send(conversation))["remaining-tokens"] > 980


async def test_turns_at_once_are_as_many_as_allowed_whoever_listens(brain: World) -> None:
    conversations = [await brain.conversation() for _ in range(3)]
    limits(brain, concurrent_turns=2)
    brain.hosts.script = Script(go=asyncio.Event())
    async with asyncio.timeout(20):
        path = f"/api/v1/conversations/{conversations[0]}/messages"
        async with brain.http.stream("POST", path, json={"content": "hi", "stream": True}) as left:
            assert "turn.accepted" in await anext(left.aiter_text())
        waiting = asyncio.create_task(brain.send(conversations[1]))
        await until(lambda: len(brain.hosts.running) == 2)
        refused = await brain.send(conversations[2])
        assert refused.status_code == 429
        assert "this tenant's limit of 2 turns at once" in refused.json()["error"]["message"]
        assert (await brain.http.get("/api/v1/conversations")).status_code == 200, "reading is no turn"
        assert brain.hosts.script.go is not None
        brain.hosts.script.go.set()
        assert (await waiting).status_code == 200
        assert (await brain.send(conversations[2])).status_code == 200
        await until(lambda: not brain.parts.limiter.live)
    assert brain.parts.limiter.turns == {}


async def test_who_hears_the_end_of_a_stream_may_send_again_at_once(brain: World) -> None:
    conversation = await brain.conversation()
    limits(brain, concurrent_turns=1)
    for _ in range(10):
        path = f"/api/v1/conversations/{conversation}/messages"
        async with brain.http.stream("POST", path, json={"content": "hi", "stream": True}) as stream:
            assert stream.status_code == 200
            async for text in stream.aiter_text():
                if "turn.completed" in text:
                    break
        answer = await brain.http.post(
            "/v1/chat/completions", json={**BODY, "stream": True}, headers={"x-conversation-id": conversation}
        )
        assert answer.status_code == 200


async def test_a_turn_whose_journal_is_lost_gives_its_place_back(brain: World) -> None:
    conversation = await brain.conversation()
    limits(brain, concurrent_turns=1)
    brain.hosts.script = Script(journalled=False)
    await brain.journal.lose(JournalUnavailable())
    for _ in range(2):
        answer = await brain.send(conversation, stream=True)
        assert answer.status_code == 200 and "turn.completed" in answer.text


async def test_a_client_that_leaves_a_completion_leaves_its_place(brain: World) -> None:
    limits(brain, concurrent_turns=1)
    brain.model.go = asyncio.Event()
    with suppress(httpx.ReadTimeout):
        await brain.http.post("/v1/chat/completions", json=BODY, timeout=0.3)
    async with asyncio.timeout(20):
        await brain.model.heard_cancel.wait()
    assert (await brain.http.post("/v1/chat/completions", json=BODY)).status_code == 429, "it runs until it has ended"
    brain.model.go.set()
    await until(lambda: not brain.parts.limiter.live)
    assert (await brain.http.post("/v1/chat/completions", json=BODY)).status_code == 200


async def test_a_model_that_was_not_asked_cost_no_tokens(brain: World, monkeypatch) -> None:
    limits(brain, tokens_per_minute=1000)

    async def full(request):
        raise Overloaded()

    monkeypatch.setattr(brain.model, "generate", full)
    body = {**BODY, "messages": [{"role": "user", "content": "word " * 300}]}
    for _ in range(4):
        refused = await brain.http.post("/v1/chat/completions", json=body)
        assert refused.json()["error"]["code"] == "overloaded"
        await until(lambda: not brain.parts.limiter.live)


async def test_a_turn_that_cannot_be_looked_at_holds_its_place_and_one_that_was_never_accepted_does_not(
    brain: World, monkeypatch
) -> None:
    monkeypatch.setattr(limiting, "FIRST", 0.01)
    monkeypatch.setattr(limiting, "UNHEARD", 0.1)
    limits(brain, concurrent_turns=1)
    caller, looked = Caller(brain.tenant, "key_1"), 0
    entry = await brain.parts.limiter.enter(caller, "turn", 1)
    assert entry is not None
    entry.begins(new_id("turn"))

    class Reader:
        error: Exception = Unavailable()

        async def turn(self, tenant, turn_id):
            nonlocal looked
            looked += 1
            raise self.error

    reader = Reader()
    monkeypatch.setattr(brain.parts, "reader", reader)
    limiting.leave(brain.parts, entry)
    await until(lambda: looked > 3)
    assert not entry.over
    reader.error = NotFound()
    await until(lambda: entry.over)


async def test_what_was_accepted_once_is_answered_again_whatever_the_limits(brain: World) -> None:
    conversation = await brain.conversation()
    limits(brain, requests_per_minute=1)
    key = {"idempotency-key": uuid.uuid4().hex}
    first = await brain.send(conversation, headers=key)
    again = await brain.send(conversation, headers=key)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.headers["idempotent-replayed"] == "true"
    assert json.loads(again.text)["turn"]["id"] == first.json()["turn"]["id"]
    assert told(again)["remaining-requests"] == 0
    assert (await brain.send(conversation, headers={"idempotency-key": uuid.uuid4().hex})).status_code == 429
    assert (await brain.send(conversation)).status_code == 429


async def test_a_replay_takes_no_tokens_and_no_place(brain: World) -> None:
    conversation = await brain.conversation()
    limits(brain, tokens_per_minute=1000, concurrent_turns=1)
    key = {"idempotency-key": uuid.uuid4().hex}
    await brain.send(conversation, "word " * 100, headers=key)
    for _ in range(4):
        again = await brain.send(conversation, "word " * 100, headers=key)
        assert again.headers["idempotent-replayed"] == "true"
    assert told(await brain.send(conversation))["remaining-tokens"] > 970


async def test_without_redis_there_is_still_a_limit(brain: World) -> None:
    limits(brain, requests_per_minute=2)
    brain.parts.limiter.away = True
    statuses = [(await brain.http.get("/api/v1/conversations")).status_code for _ in range(4)]
    assert statuses == [200, 200, 429, 429]
