"""Wire formats without a network: events from bytes, retry headers, keys, and the built-in model."""

import pytest

from deployments.providers import ProviderFailure, resolve_key, shown
from deployments.providers.http import retry_after
from deployments.providers.openai import body_of
from deployments.providers.scripted import ScriptedWire, reply
from deployments.providers.scripted_templates import NO_MODEL, TEMPLATES
from deployments.providers.sse import MAX_LINE, EventParser
from domain.clarifying import OPENING
from domain.generation import GenerationRequest
from domain.model import Model, Provider, Route
from domain.turn import Parameters

STREAM = b': hello\r\ndata: {"a":1}\r\n\r\nevent: x\nid: 7\ndata:{"b":\ndata: 2}\n\n\n\ndata: [DONE]\n\n'
PARSED = [b'{"a":1}', b'{"b":\n2}', b"[DONE]"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_wherever_the_stream_is_cut(size):
    parser = EventParser()
    assert [e for i in range(0, len(STREAM), size) for e in parser.feed(STREAM[i : i + size])] == PARSED


def test_an_unfinished_event_is_not_given():
    parser = EventParser()
    assert parser.feed(b"data: {}\n") == []
    assert parser.feed(b"\n") == [b"{}"]


def test_an_endless_line_is_refused():
    with pytest.raises(ValueError, match="too long"):
        EventParser().feed(b"x" * (MAX_LINE + 1))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("-4", 0),
        ("Thu, 01 Jan 1970 00:16:50 GMT", 10),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after(value, now=1000) == seconds


def test_shown_words_are_bounded_and_have_no_keys():
    words = shown("bad key hunter2 and sk-abcdef123456 and Bearer abc.def\nagain " + "x" * 5000, "hunter2")
    assert len(words) == 300
    assert words.startswith("bad key *** and *** and *** again x")


def test_a_key_is_read_when_it_is_needed(monkeypatch, tmp_path):
    provider = Provider(name="p", base_url="http://x/v1", key="${ACME_KEY}")
    monkeypatch.setenv("ACME_KEY", " k1\n")
    assert resolve_key(provider) == "k1"
    monkeypatch.setenv("ACME_KEY", "k2")
    assert resolve_key(provider) == "k2"
    (tmp_path / "key").write_text("k3\n")
    assert resolve_key(Provider(name="p", base_url="http://x/v1", key_file=str(tmp_path / "key"))) == "k3"
    assert resolve_key(Provider(name="p", base_url="http://x/v1")) is None


@pytest.mark.parametrize("value", [None, "", "zwölf\u20ac", "a\nb"])
def test_an_unusable_key_is_a_final_error_that_does_not_show_it(monkeypatch, value):
    monkeypatch.delenv("ACME_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("ACME_KEY", value)
    with pytest.raises(ProviderFailure, match="environment variable ACME_KEY") as caught:
        resolve_key(Provider(name="p", base_url="http://x/v1", key="${ACME_KEY}"))
    assert not caught.value.retryable
    assert not value or value not in str(caught.value)


def request(messages, **fields):
    return GenerationRequest("ten_1", "turn_1", 1, "m", messages, **fields)


def user(text):
    return {"role": "user", "content": text}


def test_only_known_parameters_reach_a_provider():
    model = Model(id="m", upstream="up", defaults=Parameters(temperature=0.1, seed=3))
    route = Route(provider=Provider(name="p", base_url="http://x/v1"), model=model, id="m")
    body = body_of(route, request([user("hi")], parameters={"temperature": 0.9, "seed": None, "tools": [], "n": 5}))
    assert body == {
        "model": "up",
        "messages": [user("hi")],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.9,
        "seed": 3,
    }


async def scripted(messages, **fields):
    route = Route(provider=Provider(name="s", kind="scripted"), model=Model(id="m"), id="m")
    return [piece async for piece in ScriptedWire().stream(route, request(messages, **fields))]


async def test_scripted_says_in_its_first_reply_only_how_to_get_a_model():
    first = "".join(p.text for p in await scripted([user("hello")], intent="greeting"))
    assert first.startswith(NO_MODEL)
    assert "brain up --provider-url" in first
    later = [user("hello"), {"role": "assistant", "content": first}, user("hello")]
    assert reply(later, "greeting") in TEMPLATES["greeting"]


async def test_scripted_is_deterministic_streams_words_and_names_the_topic():
    pieces = await scripted([user("Please show me red shoes!")], intent="product_search")
    assert pieces == await scripted([user("Please show me red shoes!")], intent="product_search")
    assert pieces[-1].finish_reason == "stop"
    assert all(len(p.text.split()) == 1 for p in pieces[:-1])
    assert "“red shoes”" in "".join(p.text for p in pieces)


async def test_scripted_honours_max_tokens_and_stop():
    pieces = await scripted([user("hello")], parameters={"max_tokens": 2})
    assert ("".join(p.text for p in pieces), pieces[-1].finish_reason) == ("No language ", "length")
    pieces = await scripted([user("hello")], parameters={"stop": ["model"]})
    assert "".join(p.text for p in pieces) == "No language "


@pytest.mark.parametrize("intent", [*TEMPLATES, "never_heard_of", None])
@pytest.mark.parametrize("text", ["", "   ", "{topic} {0} %s", "please", "x" * 5000])
def test_scripted_has_an_answer_to_everything(intent, text):
    assert reply([{"role": "assistant", "content": "a"}, user(text)], intent)
    assert reply([], intent)


def test_the_built_in_model_asks_what_is_meant_once_and_then_says_what_it_can_do():
    said = [{"role": "user", "content": "hm"}]
    question = f"{OPENING} Is this about “refund” or “parcel”?"
    first = reply(said, "refund", question)
    assert first == NO_MODEL + question
    said += [{"role": "assistant", "content": first}, {"role": "user", "content": "well"}]
    second = reply(said, "refund", question)
    assert OPENING not in second and any(second.startswith(one.partition("{")[0]) for one in TEMPLATES["other"])
    said += [{"role": "assistant", "content": second}, {"role": "user", "content": "hm"}]
    assert reply(said, "refund", question) == question
