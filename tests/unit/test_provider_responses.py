"""OpenAI's Responses API: the double against the official client, then the wire against the double."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from deployments.providers import Piece, ProviderFailure, Reattaches
from deployments.providers.openai import OpenAIWire
from deployments.providers.responses_body import body_of
from domain.message import Usage
from tests.doubles.asking import CALLED, SCHEMA, WEATHER, Heard, asking, hear, route_to
from tests.doubles.responses_double import ResponsesDouble, responses_double
from tests.doubles.script import KEY, PIXEL, Call, Said

ULM = Call("call_1", "weather", ('{"town"', ': "Ulm"}'))
ROM = Call("call_2", "weather", ('{"town": "Rom"}',))
TOOL: Any = {"type": "function", "name": "weather", "parameters": {}, "strict": False}


@pytest.fixture
async def double(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ResponsesDouble]:
    monkeypatch.setenv("DOUBLE_KEY", KEY)
    async with responses_double() as made:
        yield made


@pytest.fixture
async def client(double: ResponsesDouble) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=double.url, max_retries=0) as made:
        yield made


@pytest.fixture
async def wire() -> AsyncIterator[OpenAIWire]:
    made = OpenAIWire()
    yield made
    await made.close()


def route(double: ResponsesDouble, **model: Any) -> Any:
    return route_to(double.url, api="responses", **model)


async def ask(wire: OpenAIWire, double: ResponsesDouble, content: Any = "hello", **fields: Any) -> Heard:
    return await hear(wire.stream(route(double), asking(content, **fields)))


# The double, driven by the official client


async def test_the_official_client_understands_the_double(client: openai.AsyncOpenAI, double: ResponsesDouble) -> None:
    double.says(Said(thinking=("hm",), calls=(ULM, ROM)))
    whole = await client.responses.create(model="m", input="hi", tools=[TOOL], store=False)
    assert (whole.output_text, [item.type for item in whole.output][-1]) == ("Hello", "function_call")
    async with client.responses.stream(model="m", input="hi", tools=[TOOL], store=False) as stream:
        final = await stream.get_final_response()
    assert final.output_text == "Hello"
    assert [item.arguments for item in final.output if item.type == "function_call"] == [ULM.arguments, ROM.arguments]
    assert final.usage is not None
    assert final.usage.total_tokens == 18


async def test_the_official_client_reattaches_and_cancels(client: openai.AsyncOpenAI, double: ResponsesDouble) -> None:
    double.says(Said(hold=asyncio.Event(), at=6))
    stream = await client.responses.create(model="m", input="hi", background=True, stream=True)
    seen = [await anext(stream) for _ in range(3)]
    ref = seen[0].response.id  # type: ignore[union-attr]
    await stream.close()
    again = await client.responses.retrieve(ref, stream=True, starting_after=seen[-1].sequence_number)
    more = await anext(again)
    assert more.sequence_number == 3
    cancelled = await client.responses.cancel(ref)
    assert (cancelled.status, double.cancelled) == ("cancelled", [ref])


@pytest.mark.parametrize(
    "wrong",
    [
        {"input": None},
        {"messages": []},
        {"stop": "x"},
        {"max_tokens": 20},
        {"max_output_tokens": 3},
        {"background": True, "store": False},
        {"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
        {"input": [{"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}]},
        {"input": [{"type": "function_call_output", "call_id": "1", "output": "x"}]},
        {"input": [{"type": "function_call", "call_id": "1", "name": "x", "arguments": "{}"}]},
        {"tools": [WEATHER]},
        {"tools": [{"type": "function", "name": "a b", "parameters": {}, "strict": False}]},
        {"tool_choice": "auto"},
        {"tools": [TOOL], "tool_choice": {"type": "function", "name": "other"}},
        {"response_format": {"type": "json_object"}},
        {"text": {"format": {"type": "json_object"}}},
        {"text": {"format": SCHEMA}},
    ],
)
async def test_the_double_refuses_what_the_api_refuses(client: openai.AsyncOpenAI, wrong: Any) -> None:
    good: dict[str, Any] = {"model": "m", "input": "hi"}
    body = {name: value for name, value in {**good, **wrong}.items() if value is not None}
    with pytest.raises(openai.BadRequestError):
        await client.post("/responses", body=body, cast_to=object)
    await client.post("/responses", body=good, cast_to=object)


# The wire


async def test_a_reply_is_streamed_counted_and_not_stored(wire: OpenAIWire, double: ResponsesDouble) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "system", "content": "Now."},
        {"role": "user", "content": "three"},
    ]
    heard = await ask(wire, double, messages, parameters={"max_tokens": 50, "temperature": 0.5, "seed": 3})
    assert (heard.text, heard.finish, heard.failure) == ("Hello", "stop", None)
    assert heard.usage == Usage(prompt_tokens=11, cached_tokens=4, completion_tokens=7, total_tokens=18)
    assert double.body == {
        "model": "up",
        "instructions": "Be brief.",
        "input": messages[1:],
        "stream": True,
        "store": False,
        "max_output_tokens": 50,
        "temperature": 0.5,
    }
    assert {piece.ref for piece in heard.pieces} == {None}


@pytest.mark.parametrize("streams", [True, False])
async def test_tools_go_there_and_calls_come_back(wire: OpenAIWire, double: ResponsesDouble, streams: bool) -> None:
    double.says(Said(thinking=("hm",), calls=(ULM, ROM), streams=streams))
    choice = {"type": "function", "function": {"name": "weather"}}
    given = {"tools": [WEATHER], "tool_choice": choice, "parallel_tool_calls": False, "response_format": SCHEMA}
    heard = await ask(wire, double, CALLED, parameters=given)
    assert (heard.text, heard.finish) == ("Hello", "tool_calls")
    assert heard.tools == [("call_1", "weather", '{"town": "Ulm"}'), ("call_2", "weather", '{"town": "Rom"}')]
    assert {call["index"] for call in heard.calls} == {0, 1}
    [tool] = double.body["tools"]
    assert (tool["name"], tool["strict"]) == ("weather", False)
    assert double.body["tool_choice"] == {"type": "function", "name": "weather"}
    assert double.body["text"]["format"]["type"] == "json_schema"
    assert double.body["text"]["format"]["name"] == "answer"
    assert [item.get("type", item.get("role")) for item in double.body["input"]] == [
        "user",
        "assistant",
        "function_call",
        "function_call",
        "function_call_output",
        "function_call_output",
        "user",
    ]


async def test_images_and_json(wire: OpenAIWire, double: ResponsesDouble) -> None:
    parts = [{"type": "text", "text": "json?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    form = {"response_format": {"type": "json_object"}}
    heard = await ask(wire, double, [{"role": "user", "content": parts}], parameters=form)
    assert heard.failure is None
    assert double.body["input"][0]["content"] == [
        {"type": "input_text", "text": "json?"},
        {"type": "input_image", "image_url": PIXEL, "detail": "auto"},
    ]


@pytest.mark.parametrize("fields", [{"parameters": {"stop": ["x"]}}, {"prefix": "Hel"}])
async def test_what_it_cannot_say_is_refused_without_a_call(
    wire: OpenAIWire, double: ResponsesDouble, fields: Any
) -> None:
    failure = (await ask(wire, double, **fields)).failure
    assert failure is not None
    assert (failure.refused, failure.retryable, double.received) == (True, False, [])


async def test_thoughts_refusals_and_why_it_stopped(wire: OpenAIWire, double: ResponsesDouble) -> None:
    double.says(Said(thinking=("hm", "m"), text=(), refusal="I will not."))
    heard = await ask(wire, double)
    assert (heard.text, heard.finish) == ("I will not.", "stop")
    for reason, finish in (("max_output_tokens", "length"), ("content_filter", "content_filter")):
        double.says(Said(finish=reason))
        assert (await ask(wire, double)).finish == finish


@pytest.mark.parametrize(
    ("code", "status", "retryable"),
    [
        ("server_error", 500, True),
        ("rate_limit_exceeded", 429, True),
        ("invalid_prompt", 400, False),
        ("image_too_large", 400, False),
    ],
)
async def test_a_failed_response_keeps_the_text(
    wire: OpenAIWire, double: ResponsesDouble, code: str, status: int, retryable: bool
) -> None:
    double.says(Said(fault="error", at=3, error=(code, "so it is")))
    heard = await ask(wire, double)
    assert (heard.text, heard.finish) == ("Hel", None)
    assert heard.failure is not None
    assert "so it is" in str(heard.failure)
    assert (heard.failure.status, heard.failure.retryable) == (status, retryable)


async def test_a_failed_response_has_ended_and_a_lost_stream_has_not(wire: OpenAIWire, double: ResponsesDouble) -> None:
    for fault, ended in (("error", True), ("cut", False)):
        double.says(Said(fault=fault, at=3))
        failure = (await ask(wire, double)).failure
        assert failure is not None
        assert failure.ended is ended


@pytest.mark.parametrize("fault", ["cut", "truncate"])
async def test_a_broken_stream_is_no_answer(wire: OpenAIWire, double: ResponsesDouble, fault: str) -> None:
    double.says(Said(fault=fault, at=5))
    heard = await ask(wire, double)
    assert (heard.text, heard.finish) == ("Hel", None)
    assert (heard.failure is None) == (fault == "truncate")


@pytest.mark.parametrize("lost_after", range(1, 10))
@pytest.mark.parametrize("calls", [(), (ULM, ROM)])
async def test_a_lost_stream_is_taken_up_again(
    wire: OpenAIWire, double: ResponsesDouble, lost_after: int, calls: Any
) -> None:
    assert isinstance(wire, Reattaches)
    double.says(Said(calls=calls, fault="cut", at=lost_after))
    asked = asking(parameters={"tools": [WEATHER]} if calls else {})
    heard = await hear(wire.stream(route(double, reattach=True), asked))
    assert heard.failure is not None
    assert (double.body["background"], double.body["store"]) == (True, True)
    last = heard.pieces[-1]
    assert last.ref == "resp_1"
    more = await hear(wire.resume(route(double, reattach=True), asked, last.ref, last.cursor))
    assert (heard.text + more.text, more.finish, more.failure) == ("Hello", "tool_calls" if calls else "stop", None)
    both = Heard(calls=heard.calls + more.calls)
    assert both.tools == [(call.id, call.name, call.arguments) for call in calls]
    assert more.usage is not None
    assert double.resumed == ["" if calls else str(last.cursor)]


async def test_an_answer_in_the_background_is_abandoned_and_a_lost_one_is_a_failure(
    wire: OpenAIWire, double: ResponsesDouble
) -> None:
    double.says(Said(hold=asyncio.Event(), at=5))
    stream = wire.stream(route(double, reattach=True), asking())
    first: Piece = await anext(stream)
    assert first.ref is not None
    await stream.aclose()
    await wire.abandon(route(double), first.ref)
    assert double.cancelled == [first.ref]
    lost = await hear(wire.resume(route(double), asking(), "resp_9", 3))
    assert lost.failure is not None
    assert lost.failure.status == 404
    with pytest.raises(ProviderFailure):
        await wire.abandon(route(double), "resp_9")


def test_openais_own_host_gets_a_cache_key() -> None:
    body = body_of(route_to("https://api.openai.com/v1", api="responses"), asking(session="conv_1"))
    assert body["prompt_cache_key"] == "conv_1"
