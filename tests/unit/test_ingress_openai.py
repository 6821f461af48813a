"""The OpenAI-compatible API, through the official client."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from domain.errors import JournalUnavailable, Unavailable
from domain.generation import Outcome
from serve_app.ingress.parts import IngressSettings
from tests.unit.ingress_world import KEY, USAGE, Script, World, world

HI: list[Any] = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def brain(database_url: str, tenant: str) -> AsyncIterator[World]:
    async with world(database_url, tenant, IngressSettings(poll=0.01)) as made:
        yield made


@pytest.fixture
async def client(brain: World) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{brain.url}/v1", max_retries=0) as made:
        yield made


async def text_of(stream: Any) -> tuple[str, str | None]:
    text, reason = "", None
    async for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    return text, reason


async def lines_of(brain: World, headers: Any = None, **fields: Any) -> list[Any]:
    body = {"model": "small", "messages": HI, "stream": True, **fields}
    answer = await brain.http.post("/v1/chat/completions", json=body, headers=headers)
    lines = [block.removeprefix("data: ") for block in answer.text.split("\n\n") if block.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def test_a_completion(brain: World, client: openai.AsyncOpenAI) -> None:
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    raw = await client.chat.completions.with_raw_response.create(
        model="small", messages=messages, temperature=0.5, max_completion_tokens=9, user="me", logprobs=True
    )
    answer = raw.parse()
    assert answer.choices[0].message.content == "Hello"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 5
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 1
    assert raw.headers["x-brain-model"] == "small"
    asked = brain.model.asked[0]
    assert asked.messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "ab"}]
    assert asked.parameters == {"temperature": 0.5, "max_tokens": 9}
    assert not asked.journal


async def test_auto_takes_the_selection(brain: World, client: openai.AsyncOpenAI) -> None:
    await client.chat.completions.create(model="auto", messages=HI)
    assert brain.model.asked[0].model == "small"


async def test_a_stream(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="small", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert [chunk.choices[0].delta.content for chunk in chunks if chunk.choices] == ["", "Hel", "lo", None]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


async def test_a_stream_without_a_journal_still_carries_the_whole_text(brain: World) -> None:
    await brain.journal.lose(JournalUnavailable())
    lines = await lines_of(brain)
    assert [line["choices"][0]["delta"].get("content") for line in lines[:-1]] == ["", "Hello", None]
    assert lines[-1] == "[DONE]"


async def test_an_error_in_mid_stream_is_a_line_and_no_done(brain: World, client: openai.AsyncOpenAI) -> None:
    error = {"message": "no luck", "type": "provider_error", "param": None, "code": "provider_error"}
    brain.model.outcome = Outcome("failed", "Hel", error=error)
    brain.model.deltas = ("Hel",)
    lines = await lines_of(brain)
    assert lines[-1] == {"error": error}
    with pytest.raises(openai.APIError, match="no luck"):
        await text_of(await client.chat.completions.create(model="small", messages=HI, stream=True))
    with pytest.raises(openai.InternalServerError) as failed:
        await client.chat.completions.create(model="small", messages=HI)
    assert failed.value.status_code == 502
    assert failed.value.code == "provider_error"


async def test_a_lost_generation_is_an_error_too(brain: World) -> None:
    async def lost(_: object) -> Outcome:
        raise Unavailable("the process died")

    brain.model.generate = lost  # type: ignore[method-assign,assignment]
    assert (await lines_of(brain))[-1]["error"]["message"] == "the process died"


@pytest.mark.parametrize("streamed", [True, False])
async def test_leaving_cancels_what_nobody_keeps(brain: World, streamed: bool) -> None:
    brain.model.go = asyncio.Event()
    body = {"model": "small", "messages": HI, "stream": streamed}
    request = asyncio.create_task(brain.http.post("/v1/chat/completions", json=body))
    while not brain.model.asked:
        await asyncio.wait((request,), timeout=0.01)
    request.cancel()
    await brain.model.heard_cancel.wait()
    assert brain.model.cancelled == brain.model.asked


async def test_wrong_requests_are_400_and_unknown_models_404(client: openai.AsyncOpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    wrong: list[dict[str, Any]] = [
        {"messages": []},
        {"messages": [{"role": "user", "content": [image]}]},
        {"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]},
        {"messages": HI, "temperature": 7},
        {"messages": HI, "n": 2},
    ]
    for fields in wrong:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model="small", **fields)
        assert refused.value.param
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="nope", messages=HI)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")


async def test_models(client: openai.AsyncOpenAI) -> None:
    listed = [model.id async for model in client.models.list()]
    assert listed == ["auto", "small", "org/large", "scripted"]
    assert (await client.models.retrieve("org/large")).owned_by == "acme"
    assert (await client.models.retrieve("gpt-5")).id == "gpt-5"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nope")


async def test_embeddings(client: openai.AsyncOpenAI) -> None:
    for encoding in ({}, {"encoding_format": "float"}):
        made = await client.embeddings.create(model="auto", input=["one text", "two"], **encoding)  # type: ignore[arg-type]
        assert [one.embedding for one in made.data] == [pytest.approx([0.6, 0.8])] * 2
        assert (made.model, made.usage.prompt_tokens) == ("acme/mini", 3)
    assert len((await client.embeddings.create(model="mini", input="one")).data) == 1
    wrong: list[Any] = [[1, 2, 3], [[1], [2]], "", [], ["x"] * 2049]
    for given in wrong:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.embeddings.create(model="auto", input=given)
        assert refused.value.param == "input"
    with pytest.raises(openai.NotFoundError):
        await client.embeddings.create(model="nope", input="x")
    with pytest.raises(openai.BadRequestError):
        await client.embeddings.create(model="auto", input="x", dimensions=3)


@pytest.mark.parametrize("by_header", [True, False])
@pytest.mark.parametrize("model", ["auto", "small"])
async def test_a_conversation_keeps_the_last_message_as_a_turn(
    brain: World, client: openai.AsyncOpenAI, by_header: bool, model: str
) -> None:
    conversation = await brain.conversation()
    named: dict[str, Any] = {"extra_headers": {"x-conversation-id": conversation}}
    if not by_header:
        named = {"metadata": {"conversation_id": conversation, "colour": "red"}}
    messages: list[Any] = [{"role": "system", "content": "ignored"}, *HI, *HI]
    raw = await client.chat.completions.with_raw_response.create(model=model, messages=messages, **named)
    assert raw.parse().choices[0].message.content == "Hello"
    turn = (await brain.http.get(f"/api/v1/turns/{raw.headers['x-brain-turn']}")).json()
    assert (turn["conversation_id"], turn["status"], raw.headers["x-brain-model"]) == (
        conversation,
        "completed",
        "small",
    )
    sent = brain.hosts.sent[0]
    assert (sent.content, sent.understand, sent.on_busy) == ("hi", model == "auto", "queue")
    assert sent.metadata == ({} if by_header else {"colour": "red"})
    stream = await client.chat.completions.with_raw_response.create(
        model=model, messages=HI, stream=True, stream_options={"include_usage": True}, **named
    )
    assert stream.headers["x-brain-model"] == "small"
    assert await text_of(stream.parse()) == ("Hello", "stop")
    listed = (await brain.http.get(f"/api/v1/conversations/{conversation}/messages")).json()
    assert [one["role"] for one in listed["data"]] == ["user", "assistant"] * 2


async def test_a_kept_streams_failures(brain: World) -> None:
    headers = {"x-conversation-id": await brain.conversation()}
    error = {"message": "no luck", "type": "provider_error", "param": None, "code": "provider_error"}
    for model in ("small", "auto"):
        brain.hosts.script = Script(error=error)
        assert (await lines_of(brain, headers, model=model))[-1] == {"error": error}
        brain.hosts.script = Script(resets=True)
        lines = await lines_of(brain, headers, model=model)
        assert lines[-1]["error"]["code"] == "turn_reset", lines
        brain.hosts.script = Script(journalled=False)
        lines = await lines_of(brain, headers, model=model)
        assert [line["choices"][0]["delta"].get("content") for line in lines[:-1]] == ["", "Hello", None]
    brain.hosts.script = Script(error=error)
    body = {"model": "small", "messages": HI}
    answer = await brain.http.post("/v1/chat/completions", json=body, headers=headers)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (502, "false")
    assert answer.json()["error"]["param"] == answer.headers["x-brain-turn"]
    missing = await brain.http.post("/v1/chat/completions", json=body, headers={"x-conversation-id": "conv_1"})
    assert missing.status_code == 404


async def test_a_repeated_completion_of_a_conversation_is_replayed(brain: World) -> None:
    headers = {"x-conversation-id": await brain.conversation(), "idempotency-key": "once"}
    body = {"model": "small", "messages": HI}
    first, again = [await brain.http.post("/v1/chat/completions", json=body, headers=headers) for _ in range(2)]
    assert first.content == again.content
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["usage"]["total_tokens"] == USAGE.total_tokens
    lines = await lines_of(brain, headers)
    assert "".join(line["choices"][0]["delta"].get("content", "") for line in lines[:-1]) == "Hello"
