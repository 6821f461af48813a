"""Anthropic's wire format: the double against the official client, then the wire against the double."""

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from deployments.providers import Piece
from deployments.providers.anthropic import AnthropicWire, MessageReader
from deployments.providers.http import HttpPool
from domain.message import Usage
from domain.turn import Parameters
from tests.doubles.anthropic_double import AnthropicDouble, anthropic_double
from tests.doubles.asking import CALLED, SCHEMA, WEATHER, Heard, asking, hear, route_to
from tests.doubles.script import KEY, PIXEL, Call, Said

ULM = Call("toolu_1", "weather", ('{"town"', ': "Ulm"}'))
NOTHING = Call("toolu_2", "weather")
MARK = {"type": "ephemeral"}


@pytest.fixture
async def double(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AnthropicDouble]:
    monkeypatch.setenv("DOUBLE_KEY", KEY)
    async with anthropic_double() as made:
        yield made


@pytest.fixture
async def client(double: AnthropicDouble) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key=KEY, base_url=double.url, max_retries=0) as made:
        yield made


@pytest.fixture
async def wire() -> AsyncIterator[AnthropicWire]:
    made = AnthropicWire()
    yield made
    await made.close()


async def ask(wire: AnthropicWire, double: AnthropicDouble, content: Any = "hello", **fields: Any) -> Heard:
    model = {name: fields.pop(name) for name in ("capabilities", "defaults") if name in fields}
    return await hear(wire.stream(route_to(double.url, "anthropic", **model), asking(content, **fields)))


# The double, driven by the official client


async def test_the_official_client_understands_the_double(client: anthropic.AsyncAnthropic, double: Any) -> None:
    double.says(Said(thinking=("hm", "m"), calls=(ULM, NOTHING)))
    tool: Any = {"name": "weather", "input_schema": {"type": "object"}}
    messages: Any = [{"role": "user", "content": "hi"}]
    whole = await client.messages.create(model="m", max_tokens=9, messages=messages, tools=[tool])
    assert [block.type for block in whole.content] == ["text", "tool_use", "tool_use"]
    async with client.messages.stream(model="m", max_tokens=9, messages=messages, tools=[tool]) as stream:
        streamed = await stream.get_final_message()
    kinds = [block.type for block in streamed.content]
    assert kinds == ["thinking", "redacted_thinking", "text", "tool_use", "tool_use"]
    assert [block.input for block in streamed.content if block.type == "tool_use"] == [{"town": "Ulm"}, {}]
    assert (streamed.stop_reason, streamed.usage.cache_read_input_tokens) == ("tool_use", 300)


async def test_the_official_client_hears_the_doubles_errors(client: anthropic.AsyncAnthropic, double: Any) -> None:
    messages: Any = [{"role": "user", "content": "hi"}]
    double.says(Said(status=529, error=("", "Overloaded")), Said(fault="error", at=2, error=("overloaded_error", "No")))
    with pytest.raises(anthropic.OverloadedError):
        await client.messages.create(model="m", max_tokens=9, messages=messages)
    with pytest.raises(anthropic.APIStatusError, match="No"):
        async with client.messages.stream(model="m", max_tokens=9, messages=messages) as stream:
            await stream.until_done()


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": None},
        {"max_tokens": 0},
        {"temperature": 0.5},
        {"colour": "red"},
        {"messages": []},
        {"messages": [{"role": "user", "content": ""}, {"role": "user", "content": [{"type": "text", "text": ""}]}]},
        {"messages": [{"role": "system", "content": "x"}]},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x "}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "x"}]}]},
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": {}}]}]},
        {"tools": [{"name": "a b", "input_schema": {"type": "object"}}]},
        {"tools": [{"name": "a", "input_schema": {"type": "string"}}]},
        {"tools": [{"type": "function", "function": {"name": "a"}}]},
        {"tool_choice": {"type": "auto"}},
        {"stop_sequences": [" "]},
        {"stop_sequences": "x"},
        {"system": [{"type": "text", "text": "x", "cache_control": MARK}] * 5},
    ],
)
async def test_the_double_refuses_what_the_api_refuses(client: anthropic.AsyncAnthropic, wrong: Any) -> None:
    good: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    body = {name: value for name, value in {**good, **wrong}.items() if value is not None}
    with pytest.raises(anthropic.BadRequestError):
        await client.post("/v1/messages", body=body, cast_to=object)
    await client.post("/v1/messages", body=good, cast_to=object)


# The wire


async def test_a_reply_is_streamed_and_counted(wire: AnthropicWire, double: AnthropicDouble) -> None:
    heard = await ask(wire, double, traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    assert (heard.text, heard.finish, heard.failure) == ("Hello", "stop", None)
    assert heard.usage == Usage(prompt_tokens=330, cached_tokens=300, completion_tokens=7, total_tokens=337)
    assert double.body == {
        "model": "up",
        "max_tokens": 1024,
        "stream": True,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
    }
    headers = double.received[0].headers
    assert headers["traceparent"].startswith("00-aaa")
    assert (headers["anthropic-version"], headers["x-api-key"]) == ("2026-10-21", KEY)
    assert "authorization" not in headers


async def test_a_base_url_may_end_in_v1(wire: AnthropicWire, double: AnthropicDouble) -> None:
    double.url += "/v1/"
    assert (await ask(wire, double)).text == "Hello"


async def test_an_answer_that_is_not_streamed(wire: AnthropicWire, double: AnthropicDouble) -> None:
    double.says(Said(calls=(ULM,), streams=False))
    heard = await ask(wire, double, parameters={"tools": [WEATHER]})
    assert (heard.text, heard.finish, heard.usage and heard.usage.total_tokens) == ("Hello", "tool_calls", 337)
    assert heard.tools == [("toolu_1", "weather", '{"town":"Ulm"}')]


async def test_thoughts_are_signs_of_life_and_no_text(wire: AnthropicWire, double: AnthropicDouble) -> None:
    double.says(Said(thinking=("hm", "m")))
    heard = await ask(wire, double)
    assert heard.text == "Hello"
    assert heard.pieces[0].text == ""


async def test_the_prompts_stable_beginning_is_marked(wire: AnthropicWire, double: AnthropicDouble) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    await ask(wire, double, messages, stable=3, parameters={"tools": [WEATHER]})
    assert double.body["system"] == [{"type": "text", "text": "Be brief.", "cache_control": MARK}]
    marks = [["cache_control" in block for block in message["content"]] for message in double.body["messages"]]
    assert marks == [[False], [True], [False]]
    assert "cache_control" not in double.body["tools"][0]
    await ask(wire, double, messages[1:], stable=3, parameters={"tools": [WEATHER]})
    assert double.body["tools"][0]["cache_control"] == MARK


async def test_tools_go_there_and_calls_come_back(wire: AnthropicWire, double: AnthropicDouble) -> None:
    double.says(Said(calls=(ULM, NOTHING)))
    choice = {"type": "function", "function": {"name": "weather"}}
    heard = await ask(
        wire, double, parameters={"tools": [WEATHER], "tool_choice": choice, "parallel_tool_calls": False}
    )
    assert (heard.text, heard.finish) == ("Hello", "tool_calls")
    assert heard.tools == [("toolu_1", "weather", '{"town": "Ulm"}'), ("toolu_2", "weather", "{}")]
    assert {call["index"] for call in heard.calls} == {0, 1}
    function = WEATHER["function"]
    assert double.body["tools"] == [
        {
            "name": "weather",
            "description": "The weather of a town",
            "input_schema": function["parameters"],  # type: ignore[index]
            "cache_control": MARK,
        }
    ]
    assert double.body["tool_choice"] == {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}


@pytest.mark.parametrize(
    ("choice", "theirs"), [("auto", None), ("none", {"type": "none"}), ("required", {"type": "any"})]
)
async def test_choices_of_tools(wire: AnthropicWire, double: AnthropicDouble, choice: str, theirs: Any) -> None:
    await ask(wire, double, parameters={"tools": [WEATHER], "tool_choice": choice})
    assert double.body.get("tool_choice") == theirs


async def test_calls_and_results_of_the_past(wire: AnthropicWire, double: AnthropicDouble) -> None:
    heard = await ask(wire, double, CALLED, parameters={"tools": [WEATHER]})
    assert heard.failure is None
    said, answered = double.body["messages"][1:]
    assert said["content"][1:] == [
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"town": "Ulm"}},
        {"type": "tool_use", "id": "call_2", "name": "weather", "input": {}},
    ]
    assert [block["type"] for block in answered["content"]] == ["tool_result", "tool_result", "text"]
    wrong = [*CALLED[:1], {**CALLED[1], "tool_calls": [{"id": "1", "function": {"name": "x", "arguments": "[1]"}}]}]
    heard = await ask(wire, double, wrong)
    assert heard.failure is not None
    assert heard.failure.refused


async def test_images(wire: AnthropicWire, double: AnthropicDouble) -> None:
    urls = ("https://example.org/a.png", PIXEL)
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    heard = await ask(wire, double, [{"role": "user", "content": [{"type": "text", "text": "see"}, *parts]}])
    assert heard.failure is None
    first, second = (block["source"] for block in double.body["messages"][0]["content"][1:])
    assert first == {"type": "url", "url": urls[0]}
    assert (second["type"], second["media_type"], second["data"]) == ("base64", "image/png", PIXEL.split(",")[1])


async def test_a_schema_is_the_apis_own_and_json_without_one_is_a_tools_input(
    wire: AnthropicWire, double: AnthropicDouble
) -> None:
    await ask(wire, double, parameters={"response_format": SCHEMA})
    schema = SCHEMA["json_schema"]["schema"]  # type: ignore[index]
    assert double.body["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
    double.says(Said(text=("Here:",), calls=(Call("toolu_1", "json_answer", ('{"n"', ": 1}")),)))
    heard = await ask(wire, double, parameters={"response_format": {"type": "json_object"}})
    assert (heard.text, heard.finish, heard.calls) == ('{"n": 1}', "stop", [])
    assert double.body["tool_choice"]["name"] == "json_answer"
    both = {"response_format": {"type": "json_object"}, "tools": [WEATHER]}
    refused = (await ask(wire, double, parameters=both)).failure
    assert refused is not None
    assert refused.refused


async def test_parameters(wire: AnthropicWire, double: AnthropicDouble) -> None:
    given = {"temperature": 1.7, "top_p": 0.5, "max_tokens": 5, "stop": "END", "seed": 3}
    await ask(wire, double, parameters=given)
    assert {"max_tokens": 5, "stop_sequences": ["END"]}.items() <= double.body.items()
    assert not {"temperature", "top_p", "seed"} & double.body.keys()
    defaults = Parameters(temperature=0.3, max_tokens=77)
    await ask(wire, double, parameters={"top_p": 0.5}, capabilities=["chat", "sampling"], defaults=defaults)
    assert {"temperature": 0.3, "top_p": 0.5, "max_tokens": 77}.items() <= double.body.items()
    await ask(wire, double, parameters={"temperature": 1.7}, capabilities=["chat", "sampling"])
    assert double.body["temperature"] == 1.0
    assert double.received[-1].headers["anthropic-version"] == "2023-06-01"
    assert (await ask(wire, double, parameters={"stop": ["\n"]})).failure.refused  # type: ignore[union-attr]


async def test_it_goes_on_from_a_prefix(wire: AnthropicWire, double: AnthropicDouble) -> None:
    double.says(Said(text=(" ", " world", " and more")))
    heard = await ask(wire, double, prefix="Hello ")
    assert double.body["messages"][-1] == {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]}
    assert "Hello " + heard.text == "Hello  world and more"
    double.prefill = False
    failure = (await ask(wire, double, prefix="Hello")).failure
    assert failure is not None
    assert (failure.status, failure.refused, failure.retryable) == (400, True, False)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("stop_sequence", "stop"),
        ("refusal", "content_filter"),
        ("pause_turn", "stop"),
    ],
)
async def test_why_it_stopped(wire: AnthropicWire, double: AnthropicDouble, reason: str, finish: str) -> None:
    double.says(Said(finish=reason))
    assert (await ask(wire, double)).finish == finish


@pytest.mark.parametrize(
    ("status", "retryable", "refused"),
    [
        (400, False, True),
        (401, False, False),
        (413, False, True),
        (429, True, False),
        (500, True, False),
        (529, True, False),
    ],
)
async def test_errors_before_the_answer(
    wire: AnthropicWire, double: AnthropicDouble, status: int, retryable: bool, refused: bool
) -> None:
    double.says(Said(status=status, error=("", "so it is"), headers={"retry-after": "7"}))
    failure = (await ask(wire, double)).failure
    assert failure is not None
    assert "so it is" in str(failure)
    assert (failure.status, failure.retryable, failure.refused) == (status, retryable, refused)
    assert failure.retry_after == (7 if retryable else None)


@pytest.mark.parametrize(
    ("kind", "status", "retryable"),
    [
        ("overloaded_error", 529, True),
        ("rate_limit_error", 429, True),
        ("api_error", 500, True),
        ("timeout_error", 504, True),
        ("invalid_request_error", 400, False),
        ("something_new", 500, True),
    ],
)
async def test_errors_in_mid_stream_keep_the_text(
    wire: AnthropicWire, double: AnthropicDouble, kind: str, status: int, retryable: bool
) -> None:
    double.says(Said(fault="error", at=2, error=(kind, "so it is")))
    heard = await ask(wire, double)
    assert (heard.text, heard.finish) == ("Hel", None)
    assert heard.failure is not None
    assert (heard.failure.status, heard.failure.retryable) == (status, retryable)


@pytest.mark.parametrize("fault", ["cut", "truncate", "malformed"])
async def test_a_broken_stream_is_no_answer(wire: AnthropicWire, double: AnthropicDouble, fault: str) -> None:
    double.says(Said(fault=fault, at=2))
    heard = await ask(wire, double)
    assert (heard.text, heard.finish) in (("Hel", None), ("", None))
    assert (heard.failure is None) == (fault == "truncate")


async def test_every_answers_headers_are_observed_and_keys_are_not_shown(double: AnthropicDouble) -> None:
    seen: list[Any] = []
    pool = HttpPool(lambda provider, status, headers: seen.append((provider.name, status, headers)))
    wire = AnthropicWire(pool)
    limits = {"anthropic-ratelimit-requests-remaining": "0", "retry-after": "3"}
    double.says(Said(headers=limits), Said(status=401, error=("", f"invalid key {KEY}")))
    await ask(wire, double)
    failure = (await ask(wire, double)).failure
    assert KEY not in str(failure)
    assert [(name, status) for name, status, _ in seen] == [("double", 200), ("double", 401)]
    assert {name: seen[0][2][name] for name in limits} == limits
    await wire.close()


def test_a_ping_is_a_sign_of_life_once_the_answer_has_begun() -> None:
    reader = MessageReader(route_to("http://x", "anthropic").provider, None, {})
    ping = b'{"type":"ping"}'
    reader.take(ping)
    assert reader.piece() is None
    thinking = {"type": "thinking", "thinking": "", "signature": ""}
    reader.take(json.dumps({"type": "content_block_start", "index": 0, "content_block": thinking}).encode())
    assert reader.piece() is not None
    reader.take(ping)
    assert reader.piece() == Piece()
    assert reader.piece() is None
