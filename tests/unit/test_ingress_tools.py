"""Tools, JSON and images through the OpenAI-compatible API, with the official client."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pydantic
import pytest

from deployments.hosted_llm import HostedLLM
from deployments.providers.anthropic import AnthropicWire
from deployments.providers.openai import OpenAIWire
from deployments.recording import TOOL_CALLS
from domain.errors import JournalUnavailable
from domain.events import Event
from domain.generation import GenerationRequest, Outcome
from domain.message import Intent
from domain.model import Catalog
from domain.ports import Understanding
from serve_app.ingress.openai_bodies import ChatCompletion
from serve_app.ingress.parts import IngressSettings
from storage.follower import RedisFollower
from storage.journal import RedisJournal
from storage.redis import open_redis
from tests.doubles.anthropic_double import AnthropicDouble, anthropic_double
from tests.doubles.asking import CALLED, SCHEMA, WEATHER
from tests.doubles.openai_double import OpenAIDouble, openai_double
from tests.doubles.responses_double import ResponsesDouble, responses_double
from tests.doubles.script import KEY as PROVIDER_KEY
from tests.doubles.script import PIXEL, Call, Said
from tests.unit.ingress_world import KEY, USAGE, World, world

HI: list[Any] = [{"role": "user", "content": "hi"}]
TOOLS: Any = [WEATHER]
ABLE = ["chat", "tools", "json", "images"]
ULM = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Ulm"}'}}
ROM = {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


def catalog(*providers: dict[str, Any], **routing: Any) -> Catalog:
    return Catalog.model_validate({"providers": list(providers), "routing": routing})


def acme(*models: dict[str, Any], name: str = "acme", **fields: Any) -> dict[str, Any]:
    return {"name": name, "base_url": "http://127.0.0.1:9/v1", "models": list(models), **fields}


@pytest.fixture
async def brain(database_url: str, tenant: str) -> AsyncIterator[World]:
    async with world(database_url, tenant, IngressSettings(poll=0.01)) as made:
        made.parts.catalog = catalog(acme({"id": "able", "capabilities": ABLE}, {"id": "small"}))
        yield made


@pytest.fixture
async def client(brain: World) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{brain.url}/v1", max_retries=0) as made:
        yield made


def calls_of(message: Any) -> list[tuple[str, str, str]]:
    return [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()]


async def refused(client: openai.AsyncOpenAI, **fields: Any) -> tuple[str | None, str | None]:
    """The code and the param of the 400."""
    with pytest.raises(openai.BadRequestError) as error:
        await client.chat.completions.create(**{"model": "able", "messages": HI, **fields})
    return error.value.code, error.value.param


# Shapes, with a scripted model


async def test_tools_reach_the_model_and_its_calls_come_back(brain: World, client: openai.AsyncOpenAI) -> None:
    brain.model.outcome = Outcome("completed", "", "able", "tool_calls", USAGE, tool_calls=(ULM, ROM))
    choice: Any = {"type": "function", "function": {"name": "weather"}}
    tools: Any = [{**WEATHER, "x": 1, "function": {**WEATHER["function"], "y": 2}}]  # type: ignore[dict-item]
    answer = await client.chat.completions.create(
        model="able", messages=HI, tools=tools, tool_choice=choice, parallel_tool_calls=False
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None
    assert calls_of(answer.choices[0].message) == [
        ("call_1", "weather", '{"town": "Ulm"}'),
        ("call_2", "weather", "{}"),
    ]
    asked = brain.model.asked[0]
    assert asked.parameters == {"tools": [WEATHER], "tool_choice": choice, "parallel_tool_calls": False}


async def test_streamed_calls_are_openais_chunks(brain: World, client: openai.AsyncOpenAI) -> None:
    deltas = [
        [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": '{"town": '}}],
        [
            {"index": 0, "function": {"arguments": '"Ulm"}'}},
            {"index": 1, "id": "call_2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
        ],
    ]
    outcome = Outcome("completed", "I look.", "able", "tool_calls", USAGE, tool_calls=(ULM, ROM))

    async def generate(asked: GenerationRequest) -> Outcome:
        await brain.journal.append(Event(asked.turn_id, 1, 1, "message.delta", {"text": "I look."}))
        for n, calls in enumerate(deltas, 2):
            await brain.journal.append(Event(asked.turn_id, 1, n, TOOL_CALLS, {"tool_calls": calls}))
        await brain.journal.seal(asked.turn_id)
        return outcome

    brain.model.generate = generate  # type: ignore[method-assign]
    for lost in (False, True):
        async with client.chat.completions.stream(model="able", messages=HI, tools=TOOLS) as stream:
            final = await stream.get_final_completion()
        choice = final.choices[0]
        assert (choice.message.content, choice.finish_reason) == ("I look.", "tool_calls"), lost
        assert calls_of(choice.message) == [("call_1", "weather", '{"town": "Ulm"}'), ("call_2", "weather", "{}")]
        await brain.journal.lose(JournalUnavailable())  # then the end carries what no delta did


async def test_a_call_of_which_the_journal_told_a_part_is_completed_at_the_end(
    brain: World, client: openai.AsyncOpenAI
) -> None:
    async def generate(asked: GenerationRequest) -> Outcome:
        first = {**ULM, "index": 0, "function": {"name": "weather", "arguments": '{"to'}}
        await brain.journal.append(Event(asked.turn_id, 1, 1, TOOL_CALLS, {"tool_calls": [first]}))
        await brain.journal.seal(asked.turn_id)
        return Outcome("completed", "", "able", None, USAGE, tool_calls=(ULM, ROM))

    brain.model.generate = generate  # type: ignore[method-assign]
    async with client.chat.completions.stream(model="able", messages=HI, tools=TOOLS) as stream:
        final = (await stream.get_final_completion()).choices[0]
    assert calls_of(final.message) == [("call_1", "weather", '{"town": "Ulm"}'), ("call_2", "weather", "{}")]
    assert final.finish_reason == "tool_calls"


async def test_the_past_of_tools_and_images_reach_the_model(brain: World, client: openai.AsyncOpenAI) -> None:
    await client.chat.completions.create(model="able", messages=CALLED, tools=TOOLS)  # type: ignore[arg-type]
    told = brain.model.asked[0].messages
    assert told[:3] == CALLED[:3]
    assert told[3] == {"role": "tool", "tool_call_id": "call_2", "content": "sun"}
    parts: Any = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png?b=c"}},
    ]
    await client.chat.completions.create(model="able", messages=[{"role": "user", "content": parts}])
    assert brain.model.asked[1].messages == [{"role": "user", "content": parts}]


async def test_formats_reach_the_model(brain: World, client: openai.AsyncOpenAI) -> None:
    class Answer(pydantic.BaseModel):
        n: int

    brain.model.outcome = Outcome("completed", '{"n": 3}', "able", "stop", USAGE)
    parsed = await client.chat.completions.parse(model="able", messages=HI, response_format=Answer)
    assert parsed.choices[0].message.parsed == Answer(n=3)
    sent = brain.model.asked[0].parameters["response_format"]
    assert (sent["type"], sent["json_schema"]["name"], sent["json_schema"]["strict"]) == ("json_schema", "Answer", True)
    assert sent["json_schema"]["schema"]["properties"]["n"]["type"] == "integer"
    await client.chat.completions.create(model="able", messages=HI, response_format={"type": "json_object"})
    assert brain.model.asked[1].parameters == {"response_format": {"type": "json_object"}}
    await client.chat.completions.create(model="small", messages=HI, response_format={"type": "text"})
    assert brain.model.asked[2].parameters == {}


IMAGE = {"type": "image_url", "image_url": {"url": PIXEL}}
ASKS_TOOL = {"role": "assistant", "content": None, "tool_calls": [ULM]}
ANSWERS = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "function", "function": {"name": "x" * 65}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, "tools.0.type"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": "string"}}}]}, None),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [WEATHER] * 129}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "b"}}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools"}}, None),
        ({"functions": [{"name": "a"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}}, None),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"messages": [*HI, ASKS_TOOL]}, "messages"),
        ({"messages": [*HI, ASKS_TOOL, *HI]}, "messages.2"),
        ({"messages": [*HI, ANSWERS]}, "messages.1.tool_call_id"),
        ({"messages": [*HI, ASKS_TOOL, ANSWERS, ANSWERS]}, "messages.3.tool_call_id"),
        ({"messages": [*HI, ASKS_TOOL, {"role": "tool", "content": "x"}]}, "messages.2.tool_call_id"),
        ({"messages": [{**HI[0], "tool_calls": [ULM]}]}, "messages.0"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages.0.content"),
        ({"messages": [{"role": "assistant", "content": [IMAGE]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [IMAGE] * 51}]}, "messages"),
        *(
            (
                {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": image}]}]},
                "messages.0.content",
            )
            for image in (
                {"url": "file:///etc/passwd"},
                {"url": "data:text/html;base64,AAAA"},
                {"url": "data:image/png;base64,@@@@"},
                {"url": "http://"},
                {"url": "https://example.org/" + "x" * 9000},
                {"url": PIXEL, "detail": "huge"},
                "https://example.org/a.png",
            )
        ),
    ],
)
async def test_wrong_requests_are_clear_400s(brain: World, client: openai.AsyncOpenAI, fields: Any, param: str) -> None:
    _, named = await refused(client, **fields)
    assert named is not None
    assert param is None or named == param
    assert brain.model.asked == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": TOOLS}, "tools"),
        ({"messages": [*HI, ASKS_TOOL, ANSWERS]}, "messages.1"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [*HI, {"role": "user", "content": [IMAGE]}]}, "messages.1.content"),
    ],
)
async def test_what_no_model_can_do_is_a_400_that_names_the_field(
    brain: World, client: openai.AsyncOpenAI, fields: Any, param: str
) -> None:
    assert await refused(client, model="small", **fields) == ("unsupported_capability", param)
    assert await refused(client, model="scripted", **fields) == ("unsupported_capability", param)
    await client.chat.completions.create(**{"model": "auto", "messages": HI, **fields})
    assert [(asked.model, asked.chain) for asked in brain.model.asked] == [("able", ())]
    brain.parts.catalog = catalog(acme({"id": "small"}), fallback=["scripted"])
    assert await refused(client, model="auto", **fields) == ("unsupported_capability", param)


async def test_what_a_models_api_cannot_express_is_a_400_and_auto_takes_another(
    brain: World, client: openai.AsyncOpenAI
) -> None:
    far: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]}]
    models = {"capabilities": ABLE}
    brain.parts.catalog = catalog(
        acme({"id": "claude", **models}, name="a", kind="anthropic"),
        acme({"id": "o", "api": "responses", **models}, name="b"),
        acme({"id": "own", "vllm": None, **models}, name="c", kind="vllm", base_url=None),
        acme({"id": "plain", **models}, name="d"),
        default="claude",
        fallback=["o", "own", "plain"],
    )
    json_and_tools = {"response_format": {"type": "json_object"}, "tools": TOOLS}
    for model, fields, param in (
        ("claude", json_and_tools, "response_format"),
        ("claude", {"stop": "\n"}, "stop"),
        ("o", {"stop": "END"}, "stop"),
        ("own", {"messages": far}, "messages.0.content"),
    ):
        assert await refused(client, model=model, **fields) == ("unsupported_capability", param)
        await client.chat.completions.create(**{"model": "auto", "messages": HI, **fields})
        asked = brain.model.asked[-1]
        assert model not in (asked.model, *asked.chain)
        assert "plain" in (asked.model, *asked.chain)


async def test_a_prompt_that_fits_no_model_is_a_400(brain: World, client: openai.AsyncOpenAI) -> None:
    brain.parts.catalog = catalog(
        acme({"id": "able", "context_tokens": 100}),
        acme({"id": "scripted", "context_tokens": 100}, name="scripted", kind="scripted"),
    )
    messages = [{"role": "user", "content": "long " * 500}]
    assert await refused(client, model="auto", messages=messages) == ("context_length_exceeded", "messages")


async def test_auto_weighs_by_complexity_where_two_can_answer(brain: World, client: openai.AsyncOpenAI) -> None:
    cheap = {"id": "cheap", "price_in": 0.1, "price_out": 0.2, "quality": 0.3}
    strong = {"id": "strong", "price_in": 5, "price_out": 20, "quality": 0.9}
    heard: list[str] = []

    class Scorer:
        complexity: float | None = 0.9

        async def classify(self, text: str, tenant: str = "") -> Understanding:
            heard.append(text)
            return Understanding(Intent(name="other", confidence=1), [], [], self.complexity)

    brain.parts.classifier = scorer = Scorer()
    brain.parts.catalog = catalog(acme(cheap, strong))
    for complexity, model in ((0.95, "strong"), (0.05, "cheap")):
        scorer.complexity = complexity
        await client.chat.completions.create(model="auto", messages=HI)
        assert brain.model.asked[-1].model == model
    assert heard == ["hi", "hi"]
    await client.chat.completions.create(model="cheap", messages=HI)
    brain.parts.catalog = catalog(acme(cheap))
    await client.chat.completions.create(model="auto", messages=HI)
    assert heard == ["hi", "hi"]  # nobody asks where there is nothing to choose


async def test_with_a_conversation_tools_and_images_are_refused_and_json_passes(
    brain: World, client: openai.AsyncOpenAI
) -> None:
    headers = {"x-conversation-id": await brain.conversation()}
    for fields in (
        {"tools": TOOLS},
        {"tool_choice": "required"},
        {"messages": [*HI, ASKS_TOOL, ANSWERS]},
        {"messages": [{"role": "user", "content": [IMAGE]}]},
    ):
        code, param = await refused(client, extra_headers=headers, **fields)
        assert code == "unsupported_with_conversation"
        assert param
    form: Any = {"type": "json_object"}
    answer = await client.chat.completions.create(
        model="able", messages=HI, response_format=form, extra_headers=headers
    )
    assert answer.choices[0].message.content == "Hello"
    assert brain.hosts.sent[0].parameters == {"response_format": form}
    assert (await refused(client, model="small", response_format=form, extra_headers=headers))[1] == "response_format"
    brain.parts.catalog = catalog(acme({"id": "small"}))
    assert (await refused(client, model="auto", response_format=form, extra_headers=headers))[1] == "response_format"


def test_a_body_without_new_fields_is_compared_as_it_always_was() -> None:
    body = ChatCompletion.model_validate({"model": "m", "messages": HI}).model_dump(mode="json")
    assert body["messages"] == HI
    assert not {"tools", "tool_choice", "parallel_tool_calls", "response_format", "functions"} & body.keys()
    with_tools = {"model": "m", "messages": CALLED, "tools": TOOLS}
    body = ChatCompletion.model_validate(with_tools).model_dump(mode="json", exclude_none=True)
    assert body["tools"] == TOOLS
    assert body["messages"][1]["tool_calls"] == CALLED[1]["tool_calls"]


# The whole way: ingress, generation, wire and a strict double of the provider, over a real Redis


@asynccontextmanager
async def real_model(brain: World, redis_url: str, made: Catalog) -> AsyncIterator[None]:
    redis, blocking = open_redis(redis_url), open_redis(redis_url)
    journal, follower = RedisJournal(redis), RedisFollower(redis, blocking)
    llm = HostedLLM(journal, made, wires={"openai": OpenAIWire(), "anthropic": AnthropicWire()})
    brain.parts.catalog, brain.parts.follower, brain.parts.llm = made, follower, llm
    yield
    await llm.close()
    await follower.close()
    await journal.close()
    await redis.aclose()
    await blocking.aclose()


@pytest.fixture(params=["openai", "responses", "anthropic"])
async def double(
    request: pytest.FixtureRequest, brain: World, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[OpenAIDouble | ResponsesDouble | AnthropicDouble]:
    monkeypatch.setenv("DOUBLE_KEY", PROVIDER_KEY)
    doubles: dict[str, Any] = {
        "openai": openai_double,
        "responses": responses_double,
        "anthropic": anthropic_double,
    }
    async with doubles[request.param]() as made:
        model = {"id": "able", "capabilities": ABLE, "api": "responses" if request.param == "responses" else "chat"}
        kind = "anthropic" if request.param == "anthropic" else "openai"
        provider = acme(model, kind=kind, base_url=made.url, key="${DOUBLE_KEY}", retries=0)
        async with real_model(brain, redis_url, catalog(provider)):
            yield made


async def test_a_round_of_tools_through_every_wire(double: Any, client: openai.AsyncOpenAI) -> None:
    double.says(
        Said(text=("I ", "look."), calls=(Call("c1", "weather", ('{"town"', ': "Ulm"}')), Call("c2", "weather")))
    )
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, *HI]
    options: Any = {"include_usage": True}
    async with client.chat.completions.stream(
        model="able", messages=messages, tools=TOOLS, stream_options=options
    ) as stream:
        kinds = {event.type async for event in stream}
        first = await stream.get_final_completion()
    message = first.choices[0].message
    assert "tool_calls.function.arguments.delta" in kinds
    assert (message.content, first.choices[0].finish_reason) == ("I look.", "tool_calls")
    called = [(call.id, json.loads(call.function.arguments or "{}")) for call in message.tool_calls or ()]
    assert called == [("c1", {"town": "Ulm"}), ("c2", {})]
    assert first.usage is not None
    assert first.usage.completion_tokens == 7
    double.says(Said())
    answers = [{"role": "tool", "tool_call_id": one, "content": "rain"} for one, _ in called]
    said = message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})
    for call in said["tool_calls"]:
        call["function"].pop("parsed_arguments", None)
    second = await client.chat.completions.create(model="able", messages=[*messages, said, *answers], tools=TOOLS)
    assert (second.choices[0].message.content, second.choices[0].finish_reason) == ("Hello", "stop")


async def test_an_image_and_a_schema_through_every_wire(double: Any, client: openai.AsyncOpenAI) -> None:
    double.says(Said(text=('{"n": ', "3}")))
    parts: Any = [{"type": "text", "text": "How many?"}, IMAGE]
    answer = await client.chat.completions.create(
        model="able",
        messages=[{"role": "user", "content": parts}],
        response_format=SCHEMA,  # type: ignore[call-overload]
    )
    assert json.loads(answer.choices[0].message.content) == {"n": 3}


async def test_errors_of_every_wire_are_openais(double: Any, client: openai.AsyncOpenAI) -> None:
    code = "api_error" if isinstance(double, AnthropicDouble) else "server_error"
    double.says(Said(fault="error", at=3, error=(code, "too much")))
    stream = await client.chat.completions.create(model="able", messages=HI, tools=TOOLS, stream=True)
    with pytest.raises(openai.APIError, match="too much"):
        async for _ in stream:
            pass
    double.says(Said(status=429, error=("rate_limit_exceeded", "slow down")))
    with pytest.raises(openai.InternalServerError) as failed:
        await client.chat.completions.create(model="able", messages=HI)
    assert failed.value.status_code == 502


async def test_calls_are_told_as_they_come_and_a_client_that_leaves_ends_them(
    double: Any, brain: World, client: openai.AsyncOpenAI
) -> None:
    held = asyncio.Event()
    double.says(Said(text=("I look.",), calls=(Call("c1", "weather", ("{", "}")),), hold=held, at=11))
    stream = await client.chat.completions.create(model="able", messages=HI, tools=TOOLS, stream=True)
    async with asyncio.timeout(10):
        async for chunk in stream:
            if chunk.choices[0].delta.tool_calls:
                break
    llm: Any = brain.parts.llm
    assert llm.running == 1
    await stream.close()
    async with asyncio.timeout(10):
        while llm.running:
            await asyncio.sleep(0.005)
