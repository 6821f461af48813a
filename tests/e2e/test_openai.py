"""The official client, unchanged."""

import openai
import pytest

from benchmarks.mock_spec import reply_tokens
from tests.conftest import wait_until

pytestmark = pytest.mark.cluster


@pytest.fixture
def client(brain):
    return openai.OpenAI(base_url=f"{brain.url}/v1", api_key=brain.key, max_retries=0)


def ask(message):
    return [{"role": "user", "content": message}]


def expected(message, n=8):
    return "".join(reply_tokens(message, n))


def test_a_completion_is_passed_on(client, brain):
    answer = client.chat.completions.with_raw_response.create(model="small", messages=ask("hi"), temperature=0.5)
    completion = answer.parse()
    assert completion.choices[0].message.content == expected("hi")
    assert completion.choices[0].finish_reason == "stop" and completion.usage.total_tokens > 0
    assert answer.headers["x-brain-model"] == "small"


def test_a_stream_is_passed_on_token_by_token(client):
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(model="mock,n=20,itl=3", messages=ask("s"), stream=True, stream_options=options)
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == expected("s", 20) and chunks[-1].usage.completion_tokens == 20
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


def test_tools_are_called_streamed_and_their_answers_go_back(client):
    schema = {"type": "object", "properties": {"asked": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": schema}}]
    messages = ask("call it")
    chunks = list(client.chat.completions.create(model="tooled", messages=messages, tools=tools, stream=True))
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == expected("call it", 2)
    deltas = [call for choice in choices for call in choice.delta.tool_calls or ()]
    assert (deltas[0].id, deltas[0].function.name) == ("call_0", "look_up") and len(deltas) > 1
    arguments = "".join(call.function.arguments or "" for call in deltas)
    assert arguments == '{"asked":"call it"}' and choices[-1].finish_reason == "tool_calls"
    called = {"id": "call_0", "type": "function", "function": {"name": "look_up", "arguments": arguments}}
    messages += [
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "call_0", "content": "found"},
    ]
    routed = client.chat.completions.with_raw_response.create(model="auto", messages=messages, tools=tools)
    assert routed.headers["x-brain-model"] == "tooled"
    assert routed.parse().choices[0].message.content == expected("call it", 2)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="small", messages=ask("x"), tools=tools)
    assert (refused.value.code, refused.value.param) == ("unsupported_capability", "tools")


def test_auto_is_routed_and_says_by_whom(client):
    answer = client.chat.completions.with_raw_response.create(model="auto", messages=ask("route me"))
    assert answer.headers["x-brain-model"] == "small" and answer.parse().choices[0].message.content


def test_with_a_conversation_turns_are_kept_and_the_servers_history_is_used(client, brain):
    conversation = brain.conversation()
    header = {"x-conversation-id": conversation}
    for i, count in enumerate(("1", "3")):
        messages = [{"role": "system", "content": "ignored"}, *ask("old"), *ask(f"message {i}")]
        answer = client.chat.completions.with_raw_response.create(
            model="mock,mode=count", messages=messages, extra_headers=header
        )
        assert answer.parse().choices[0].message.content.strip() == count
        assert answer.headers["x-brain-turn"].startswith("turn_")
    streamed = client.chat.completions.create(
        model="mock,n=9,itl=3",
        messages=ask("streamed"),
        stream=True,
        extra_body={"metadata": {"conversation_id": conversation}},
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == expected("streamed", 9)
    stored = brain.check(conversation)
    assert [message["content"] for message in stored if message["role"] == "user"] == [
        "message 0",
        "message 1",
        "streamed",
    ]


def test_the_built_in_model_answers_by_intent_also_where_nothing_is_kept(client):
    answer = client.chat.completions.create(model="scripted", messages=ask("where is my order?"))
    assert "order" in answer.choices[0].message.content


def test_models_are_listed_without_patterns(client):
    ids = [model.id for model in client.models.list()]
    assert ids[0] == "auto" and {"small", "scripted"} <= set(ids) and not any("*" in name for name in ids)


def test_embeddings_have_unit_length(client):
    answer = client.embeddings.create(model="all-MiniLM-L6-v2", input=["one text", "another"])
    vectors = [item.embedding for item in answer.data]
    assert len(vectors) == 2 and len(vectors[0]) == 384
    assert sum(x * x for x in vectors[0]) == pytest.approx(1, abs=1e-3) and answer.usage.total_tokens > 0


def test_errors_are_the_clients_own(client, brain):
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="no-such-model", messages=ask("x"))
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="small", messages=[])
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{brain.url}/v1", api_key="wrong").models.list()
    with pytest.raises(openai.APIStatusError) as failed:
        client.chat.completions.create(model="mock,status=500", messages=ask("x"))
    assert failed.value.status_code == 502


def test_an_error_in_mid_stream_is_an_error_of_the_client(client):
    stream = client.chat.completions.create(model="mock,n=9,itl=5,fault=cut,at=3", messages=ask("x"), stream=True)
    with pytest.raises(openai.APIError):
        list(stream)


def test_a_disconnect_cancels_what_is_not_kept(client, calls):
    stream = client.chat.completions.create(model="mock,n=2000,itl=20", messages=ask("left alone"), stream=True)
    for _ in range(3):
        next(stream)
    stream.close()
    wait_until(lambda: calls.stats()["open_streams"] == 0, 5, what="the provider's stream being closed")
