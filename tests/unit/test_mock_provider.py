"""The mock provider is itself what other tests lean on: it must say what it promises, and count what it saw."""

import aiohttp
import orjson
import pytest

from benchmarks.mock_provider import MockProvider, serve
from benchmarks.mock_spec import parse_model, reply_tokens


@pytest.fixture
async def mock():
    provider = MockProvider(key="k1")
    runner, url = await serve(provider)
    async with aiohttp.ClientSession(url + "/", headers={"Authorization": "Bearer k1"}) as client:
        yield client
    await runner.cleanup()


def ask(model="mock", content="hello", **fields):
    return {"model": model, "messages": [{"role": "user", "content": content}], **fields}


async def events(client, body):
    async with client.post("chat/completions", json=body) as response:
        assert response.status == 200
        return [line[6:] for line in (await response.text()).split("\n\n") if line]


async def test_streams_one_event_a_token_in_order_then_usage_then_done(mock):
    lines = await events(mock, ask("mock,n=200", stream=True, stream_options={"include_usage": True}))
    assert lines[-1] == "[DONE]"
    *chunks, usage = [orjson.loads(line) for line in lines[:-1]]
    assert [c["choices"][0]["delta"]["content"] for c in chunks[1:-1]] == reply_tokens("hello", 200)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"]["completion_tokens"] == 200


async def test_delayed_tokens_are_the_same_tokens(mock):
    lines = await events(mock, ask("mock,n=5,itl=1,ttft=1", stream=True))
    said = "".join(orjson.loads(line)["choices"][0]["delta"].get("content", "") for line in lines[:-1])
    assert said == "".join(reply_tokens("hello", 5))


@pytest.mark.parametrize(
    ("mode", "said"),
    [("echo", "say  this\nback"), ("count", "1"), ("prompt", '[{"role":"user","content":"say  this\\nback"}]')],
)
async def test_modes_answer_from_the_request(mock, mode, said):
    async with mock.post("chat/completions", json=ask(f"mock,mode={mode}", "say  this\nback")) as response:
        assert (await response.json())["choices"][0]["message"]["content"] == said


@pytest.mark.parametrize(
    "body",
    [
        ask(colour="red"),
        {"model": "mock"},
        {"model": "mock", "messages": []},
        {"model": "mock", "messages": [{"role": "user"}]},
        {"model": "mock", "messages": [{"role": "wizard", "content": ""}]},
        ask("mock,fault=nonsense"),
        ask("mock,n=many"),
        ask("mock,speed=9"),
        [],
    ],
)
async def test_refuses_what_openai_does_not_know(mock, body):
    async with mock.post("chat/completions", json=body) as response:
        assert response.status == 400


async def test_checks_the_key(mock):
    async with mock.post("chat/completions", json=ask(), headers={"Authorization": "Bearer k2"}) as response:
        assert response.status == 401


async def test_a_counted_fault_passes_and_calls_are_counted_by_message(mock):
    statuses = []
    for _ in range(3):
        async with mock.post("chat/completions", json=ask("mock,status=503,retry_after=7,times=2")) as response:
            statuses.append((response.status, response.headers.get("Retry-After")))
    assert statuses == [(503, "7"), (503, "7"), (200, None)]
    async with mock.get("../stats") as response:
        assert await response.json() == {"calls": 3, "by_user": {"hello": 3}, "open_streams": 0, "closed_early": 0}
    await mock.post("../reset")
    async with mock.get("../stats") as response:
        assert (await response.json())["calls"] == 0


async def test_max_tokens_cuts_the_reply(mock):
    async with mock.post("chat/completions", json=ask(max_tokens=3)) as response:
        choice = (await response.json())["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("length", "".join(reply_tokens("hello", 3)))


async def test_embeddings_are_unit_vectors_and_equal_for_equal_texts(mock):
    async with mock.post("embeddings", json={"model": "mock", "input": ["a", "b", "a"]}) as response:
        first, second, third = [row["embedding"] for row in (await response.json())["data"]]
    assert first == third != second
    assert sum(x * x for x in first) == pytest.approx(1)


def test_a_plain_name_has_the_defaults():
    assert parse_model("gpt-4o").n == 16


async def test_offered_tools_are_called_until_one_has_answered(mock):
    tools = [{"type": "function", "function": {"name": name}} for name in ("a", "b", "c")]
    body = ask("mock,n=2,tools=2", tools=tools, stream=True)
    chunks = [orjson.loads(line)["choices"][0] for line in (await events(mock, body))[:-1]]
    calls = [call for chunk in chunks for call in chunk["delta"].get("tool_calls", ())]
    arguments = ["".join(c["function"]["arguments"] for c in calls if c["index"] == index) for index in (0, 1)]
    assert [call["function"]["name"] for call in calls if "id" in call] == ["a", "b"]
    assert [orjson.loads(one) for one in arguments] == [{"asked": "hello"}] * 2
    assert chunks[-1]["finish_reason"] == "tool_calls"
    async with mock.post("chat/completions", json={**body, "stream": False}) as response:
        message = (await response.json())["choices"][0]["message"]
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["a", "b"]
    body["messages"] += [{**message, "content": None}, {"role": "tool", "tool_call_id": "call_0", "content": "x"}]
    async with mock.post("chat/completions", json={**body, "stream": False}) as response:
        assert (await response.json())["choices"][0]["finish_reason"] == "stop"
