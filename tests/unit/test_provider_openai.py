"""OpenAI's chat completions: the double against the official client, then the wire against the double."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from deployments.providers.openai import ChatReader, OpenAIWire, body_of, continued, whole
from domain.message import Usage
from tests.doubles.asking import CALLED, SCHEMA, WEATHER, Heard, asking, hear, route_to
from tests.doubles.openai_double import OpenAIDouble, openai_double
from tests.doubles.script import KEY, PIXEL, Call, Said

HI: Any = [{"role": "user", "content": "hi"}]
ULM = Call("call_1", "weather", ('{"town"', ': "Ulm"}'))
ROM = Call("call_2", "weather", ('{"town": "Rom"}',))


@pytest.fixture
async def double(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenAIDouble]:
    monkeypatch.setenv("DOUBLE_KEY", KEY)
    async with openai_double() as made:
        yield made


@pytest.fixture
async def client(double: OpenAIDouble) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=double.url, max_retries=0) as made:
        yield made


@pytest.fixture
async def wire() -> AsyncIterator[OpenAIWire]:
    made = OpenAIWire()
    yield made
    await made.close()


async def ask(wire: OpenAIWire, double: OpenAIDouble, content: Any = "hello", **fields: Any) -> Heard:
    return await hear(wire.stream(route_to(double.url), asking(content, **fields)))


# The double, driven by the official client


async def test_the_official_client_understands_the_double(client: openai.AsyncOpenAI, double: OpenAIDouble) -> None:
    double.says(Said(calls=(ULM, ROM)))
    tools: Any = [WEATHER]
    whole = await client.chat.completions.create(model="m", messages=HI, tools=tools)
    assert [call.function.arguments for call in whole.choices[0].message.tool_calls or ()] == [  # type: ignore[union-attr]
        '{"town": "Ulm"}',
        '{"town": "Rom"}',
    ]
    options: Any = {"include_usage": True}
    async with client.chat.completions.stream(model="m", messages=HI, tools=tools, stream_options=options) as stream:
        final = await stream.get_final_completion()
    message = final.choices[0].message
    assert (message.content, final.choices[0].finish_reason) == ("Hello", "tool_calls")
    assert [call.function.arguments for call in message.tool_calls or ()] == ['{"town": "Ulm"}', '{"town": "Rom"}']
    assert final.usage is not None
    assert final.usage.total_tokens == 18


async def test_the_official_client_hears_the_doubles_errors(client: openai.AsyncOpenAI, double: OpenAIDouble) -> None:
    double.says(Said(status=429, error=("rate_limit_exceeded", "slow down")), Said(fault="error", at=1))
    with pytest.raises(openai.RateLimitError):
        await client.chat.completions.create(model="m", messages=HI)
    with pytest.raises(openai.APIError, match="it broke"):
        async for _ in await client.chat.completions.create(model="m", messages=HI, stream=True):
            pass


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": []},
        {"colour": "red"},
        {"temperature": "hot"},
        {"stream_options": {"include_usage": True}},
        {"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]},
        {"messages": CALLED[:2]},
        {"messages": [{"role": "assistant", "content": None}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]}]},
        {"tools": []},
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        {"tools": [{"name": "a", "input_schema": {}}]},
        {"tool_choice": "auto"},
        {"parallel_tool_calls": True},
        {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "other"}}},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "schema": {}}},
    ],
)
async def test_the_double_refuses_what_the_api_refuses(client: openai.AsyncOpenAI, wrong: Any) -> None:
    good: dict[str, Any] = {"model": "m", "messages": HI}
    with pytest.raises(openai.BadRequestError):
        await client.post("/chat/completions", body={**good, **wrong}, cast_to=object)
    await client.post("/chat/completions", body=good, cast_to=object)


# The wire


async def test_a_reply_is_streamed_and_counted(wire: OpenAIWire, double: OpenAIDouble) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    heard = await ask(wire, double, traceparent=trace, session="conv_1", stable=1)
    assert (heard.text, heard.finish, heard.failure) == ("Hello", "stop", None)
    assert heard.usage == Usage(prompt_tokens=11, cached_tokens=4, completion_tokens=7, total_tokens=18)
    assert double.received[0].headers["traceparent"] == trace
    assert double.body == {
        "model": "up",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize("streams", [True, False])
async def test_tools_go_there_and_calls_come_back(wire: OpenAIWire, double: OpenAIDouble, streams: bool) -> None:
    double.says(Said(calls=(ULM, ROM), streams=streams))
    given = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False, "response_format": SCHEMA}
    heard = await ask(wire, double, CALLED, parameters=given)
    assert (heard.text, heard.finish) == ("Hello", "tool_calls")
    assert heard.tools == [("call_1", "weather", '{"town": "Ulm"}'), ("call_2", "weather", '{"town": "Rom"}')]
    assert given.items() <= double.body.items()
    assert double.body["messages"] == CALLED
    assert heard.usage is not None


async def test_a_calls_deltas_have_known_fields_alone_and_one_of_each_index() -> None:
    reader = ChatReader(route_to("http://x/v1").provider, None)
    head = b'{"choices":[{"index":0,"delta":{"tool_calls":[{"id":"a","custom":1,"function":{"name":"f"}}]}}]}'
    more = b'{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"%b"}}]}}]}'
    for data in (head, more % b"1", more % b"2"):
        assert not reader.take(data)
    piece = reader.piece()
    assert piece is not None
    assert piece.tool_calls == (
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "12"}},
    )
    assert reader.piece() is None


@pytest.mark.parametrize("indices", [("1", "2"), ("7", "3"), ("null", "1")])
async def test_calls_are_numbered_from_zero_however_the_server_does(indices: tuple[str, str]) -> None:
    reader = ChatReader(route_to("http://x/v1").provider, None)
    delta = '{"choices":[{"delta":{"tool_calls":[{"index":%s,"id":%s,"function":{"name":"f","arguments":"%s"}}]}}]}'
    for place, index in enumerate(indices):
        reader.take((delta % (index, f'"call_{place}"', "{")).encode())
        reader.take((delta % (index, "null", "}")).encode())
    piece = reader.piece()
    assert piece is not None
    assert [(call["index"], call["id"], call["function"]["arguments"]) for call in piece.tool_calls] == [
        (0, "call_0", "{}"),
        (1, "call_1", "{}"),
    ]


def test_calls_of_an_answer_that_does_not_stream_are_numbered_from_zero() -> None:
    call = '{"index":%s,"id":"a","function":{"name":"f","arguments":"{}"}}'
    message = f'{{"content":null,"tool_calls":[{call % "null"},{call % "4"}]}}'
    body = f'{{"choices":[{{"message":{message},"finish_reason":"tool_calls"}}]}}'
    piece = whole(body.encode(), route_to("http://x/v1").provider, None)
    assert [delta["index"] for delta in piece.tool_calls] == [0, 1]


async def test_images_json_and_empty_lists(wire: OpenAIWire, double: OpenAIDouble) -> None:
    parts = [{"type": "text", "text": "json?"}, {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}]
    form = {"type": "json_object"}
    heard = await ask(
        wire, double, [{"role": "user", "content": parts}], parameters={"tools": [], "response_format": form}
    )
    assert heard.failure is None
    assert (double.body["messages"][0]["content"], double.body["response_format"]) == (parts, form)
    assert "tools" not in double.body


async def test_thoughts_are_signs_of_life_and_refusals_are_text(wire: OpenAIWire, double: OpenAIDouble) -> None:
    double.says(Said(thinking=("hm", "m"), text=(), refusal="I will not."))
    heard = await ask(wire, double)
    assert heard.text == "I will not."
    assert heard.pieces[0].text == ""


@pytest.mark.parametrize("finish", ["length", "content_filter", "tool_calls", "stop"])
async def test_why_it_stopped(wire: OpenAIWire, double: OpenAIDouble, finish: str) -> None:
    double.says(Said(finish=finish))
    assert (await ask(wire, double)).finish == finish


def test_openais_own_host_takes_max_completion_tokens_and_a_cache_key() -> None:
    request = asking(parameters={"max_tokens": 5}, session="conv_1")
    theirs = body_of(route_to("https://api.openai.com/v1"), request)
    assert (theirs["max_completion_tokens"], theirs["prompt_cache_key"]) == (5, "conv_1")
    assert "max_tokens" not in theirs
    other = body_of(route_to("http://10.0.0.5/v1"), request)
    assert other["max_tokens"] == 5
    assert not {"max_completion_tokens", "prompt_cache_key"} & other.keys()


async def test_models_that_refuse_max_tokens(wire: OpenAIWire, double: OpenAIDouble) -> None:
    double.newer = True
    failure = (await ask(wire, double, parameters={"max_tokens": 5})).failure
    assert failure is not None
    assert (failure.status, failure.refused) == (400, True)


def test_it_goes_on_from_a_prefix_in_the_way_that_the_server_knows() -> None:
    request = asking(prefix="Hel")
    said = {"role": "assistant", "content": "Hel"}

    def body(url: str, **model: Any) -> dict[str, Any]:
        route = route_to(url, **model)
        return continued(body_of(route, request), route, "Hel")

    assert body("http://10.0.0.5/v1")["messages"][1] == said
    assert body("https://api.mistral.ai/v1")["messages"][1] == {**said, "prefix": True}
    told = body("http://10.0.0.5/v1", capabilities=["chat", "continue_final_message"])
    assert (told["continue_final_message"], told["add_generation_prompt"]) == (True, False)
    assert request.messages == [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("status", "code", "headers", "retryable", "after"),
    [
        (429, "rate_limit_exceeded", {"retry-after": "7"}, True, 7),
        (429, "rate_limit_exceeded", {"retry-after-ms": "1500", "retry-after": "7"}, True, 1.5),
        (429, "insufficient_quota", {"retry-after": "7"}, False, None),
        (500, "server_error", {}, True, None),
        (500, "server_error", {"x-should-retry": "false"}, False, None),
        (400, "bad", {}, False, None),
    ],
)
async def test_errors_before_the_answer(
    wire: OpenAIWire, double: OpenAIDouble, status: int, code: str, headers: Any, retryable: bool, after: Any
) -> None:
    double.says(Said(status=status, error=(code, f"so it is, {KEY}"), headers=headers))
    failure = (await ask(wire, double)).failure
    assert failure is not None
    assert "so it is, ***" in str(failure)
    assert (failure.status, failure.retryable, failure.retry_after) == (status, retryable, after)
    assert failure.refused == (status == 400)


@pytest.mark.parametrize(
    ("code", "status"), [("rate_limit_exceeded", 429), ("server_error", 500), ("invalid_prompt", 400)]
)
async def test_errors_in_mid_stream_keep_the_text(
    wire: OpenAIWire, double: OpenAIDouble, code: str, status: int
) -> None:
    double.says(Said(fault="error", at=1, error=(code, "so it is")))
    heard = await ask(wire, double)
    assert (heard.text, heard.finish) == ("Hel", None)
    assert heard.failure is not None
    assert (heard.failure.status, heard.failure.retryable) == (status, status != 400)


@pytest.mark.parametrize("fault", ["cut", "truncate", "malformed"])
async def test_a_broken_stream_is_no_answer(wire: OpenAIWire, double: OpenAIDouble, fault: str) -> None:
    double.says(Said(fault=fault, at=1))
    heard = await ask(wire, double)
    assert heard.text in ("", "Hel")
    assert heard.finish is None
    assert (heard.failure is None) == (fault == "truncate")
