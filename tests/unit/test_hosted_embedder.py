"""Embeddings from a provider on loopback, whose protocol the official client confirms; and all that goes wrong."""

import asyncio
import logging

import numpy as np
import pytest
import uvloop
from openai import AsyncOpenAI, BadRequestError

from deployments.hosted_embedder import MAX_CHARACTERS, MAX_PAUSE, HostedEmbedder, provider_at
from deployments.intent_classifier import IntentClassifier
from domain.errors import Overloaded, Unavailable
from domain.model import Timeouts
from tests.doubles.embeddings import KEY, EmbeddingsDouble, Fault, vector_of

MODEL = "text-embedding-3-small"


@pytest.fixture
async def double():
    async with EmbeddingsDouble().serving() as serving:
        yield serving


@pytest.fixture
def pauses():
    return []


@pytest.fixture
async def make(double, pauses, monkeypatch):
    """Makes embedders; they are closed at the end. Their pauses are kept and take no time."""
    monkeypatch.setenv("BRAIN_EMBEDDER_KEY", KEY)
    made = []

    async def sleep(seconds):
        pauses.append(seconds)
        await asyncio.sleep(0)

    def new(url=None, limit=15.0, **options):
        provider = provider_at(url or double.url, "${BRAIN_EMBEDDER_KEY}")
        provider = provider.model_copy(update={"timeouts": Timeouts(total=limit)})
        made.append(HostedEmbedder(provider, MODEL, sleep=sleep, chance=lambda: 0.5, **options))
        return made[-1]

    yield new
    for embedder in made:
        await embedder.close()


def unit(text, size=8):
    vector = vector_of(text, size).astype(np.float64)
    return (vector / np.linalg.norm(vector)).astype(np.float32).tolist()


async def until(condition, limit=10):
    async with asyncio.timeout(limit):
        while not condition():
            await asyncio.sleep(0.005)


async def test_the_double_speaks_as_the_official_client_expects(double):
    async with AsyncOpenAI(base_url=double.url, api_key=KEY, max_retries=0) as client:
        for options in ({}, {"dimensions": 5}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
            answer = await client.embeddings.create(model=MODEL, input=["a", "b"], **options)
            assert answer.usage.total_tokens == 2
            by_index = sorted(answer.data, key=lambda one: one.index)
            if options.get("encoding_format") != "base64":
                size = options.get("dimensions", 8)
                np.testing.assert_allclose(by_index[1].embedding, vector_of("b", size), rtol=1e-6)
        with pytest.raises(BadRequestError, match="surprise"):
            await client.embeddings.create(model=MODEL, input="a", extra_body={"surprise": 1})
        with pytest.raises(BadRequestError, match="dimensions"):
            await client.embeddings.create(model=MODEL, input="a", dimensions="many")  # type: ignore[arg-type]


@pytest.mark.parametrize("float_only", [False, True])
async def test_texts_become_vectors_of_unit_length_in_order(make, double, float_only):
    double.float_only = float_only
    embedder = make()
    assert await embedder.embed("hello") == pytest.approx(unit("hello"), abs=1e-6)
    texts = [f"text {number}" for number in range(200)]
    vectors = await embedder.embed_many(texts)
    np.testing.assert_allclose(vectors, [unit(text) for text in texts], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert all(np.float32(vector).tolist() == vector for vector in vectors)
    assert {call["encoding_format"] for call in double.calls} == {"float" if float_only else "base64"}
    assert "dimensions" not in double.calls[0]


def test_it_works_on_the_event_loop_that_serve_uses(monkeypatch):
    monkeypatch.setenv("BRAIN_EMBEDDER_KEY", KEY)

    async def embed():
        async with EmbeddingsDouble().serving() as double:
            embedder = HostedEmbedder(provider_at(double.url, "${BRAIN_EMBEDDER_KEY}"), MODEL)
            vectors = await embedder.embed_many(["a", "b"])
            await embedder.close()
            return vectors

    vectors = uvloop.run(embed())
    np.testing.assert_allclose(vectors, [unit("a"), unit("b")], atol=1e-6)


async def test_it_says_what_it_is_and_the_same_after_a_restart(make, double):
    first, second = await make().describe(), await make().describe()
    assert (first.name, first.dimensions) == (MODEL, 8)
    assert first == second
    fewer = await make(dimensions=5).describe()
    assert fewer.dimensions == 5
    assert double.calls[-1]["dimensions"] == 5
    assert fewer.revision != first.revision, "vectors of another model are not compared with these"


async def test_no_texts_are_no_call(make, double):
    assert await make().embed_many([]) == []
    assert double.arrived == 0
    assert await make().count_tokens([]) == 0
    assert await make().count_tokens(["twelve chars", "y"]) == 4


async def test_what_waits_goes_together_and_messages_do_not_wait_for_bulk(make, double):
    embedder = make(lanes=1, max_batch_size=64)
    await embedder.describe()
    double.open.clear()
    bulk = asyncio.create_task(embedder.embed_many([f"bulk {number}" for number in range(300)]))
    await until(lambda: double.at_once == 1)
    first = asyncio.create_task(embedder.embed("first"))
    await until(lambda: double.at_once == 2)
    waiting = [asyncio.create_task(embedder.embed(f"message {number}")) for number in range(20)]
    await asyncio.sleep(0)
    double.open.set()
    vectors = await asyncio.gather(first, *waiting)
    assert vectors[3] == pytest.approx(unit("message 2"), abs=1e-6)
    assert len(await bulk) == 300
    together = [len(call["input"]) for call in double.calls if call["input"][0].startswith("message")]
    assert together == [20]
    assert [len(call["input"]) for call in double.calls if call["input"][0].startswith("bulk")] == [64] * 4 + [44]


async def test_several_calls_run_at_once_and_no_more_than_that(make, double):
    embedder = make(lanes=3, max_batch_size=2)
    await embedder.describe()
    double.open.clear()
    messages = [asyncio.create_task(embedder.embed(f"message {number}")) for number in range(30)]
    await until(lambda: double.at_once == 3)
    double.open.set()
    await asyncio.gather(*messages)
    assert double.most_at_once == 3


async def test_too_many_texts_are_refused_and_the_others_answered(make, double):
    embedder = make(max_waiting=10)
    await embedder.describe()
    double.open.clear()
    accepted = [asyncio.create_task(embedder.embed(str(number))) for number in range(10)]
    await until(lambda: double.at_once > 0)
    with pytest.raises(Overloaded):
        await embedder.embed("one more")
    with pytest.raises(Overloaded):
        await embedder.embed_many(["one", "more"])
    double.open.set()
    assert len(await asyncio.gather(*accepted)) == 10
    assert len(await embedder.embed_many(["now", "again"])) == 2


async def test_a_cancelled_call_is_not_sent(make, double):
    embedder = make(lanes=1)
    await embedder.describe()
    double.open.clear()
    first = asyncio.create_task(embedder.embed("first"))
    await until(lambda: double.at_once == 1)
    gone = asyncio.create_task(embedder.embed("gone"))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    double.open.set()
    await first
    await embedder.embed("next")
    assert "gone" not in [text for call in double.calls for text in call["input"]]


async def test_it_waits_as_long_as_the_provider_asks(make, double, pauses):
    embedder = make()
    await embedder.describe()
    double.faults += [Fault(429, headers={"Retry-After": "7"}), Fault(429, headers={"retry-after-ms": "1500"})]
    assert await embedder.embed("hello") == pytest.approx(unit("hello"), abs=1e-6)
    assert pauses == [7 + 0.25, 1.5 + 0.5]


async def test_a_provider_that_asks_for_too_long_is_unavailable_at_once(make, double, pauses):
    embedder = make()
    await embedder.describe()
    double.faults.append(Fault(429, headers={"Retry-After": str(MAX_PAUSE + 1)}))
    with pytest.raises(Unavailable, match="429"):
        await embedder.embed("hello")
    assert pauses == []


@pytest.mark.parametrize("fault", [Fault(500), Fault(503), Fault(408), Fault(cut=True)])
async def test_what_may_pass_is_tried_again(make, double, pauses, fault):
    embedder = make()
    await embedder.describe()
    double.faults += [fault] * 3
    assert len(await embedder.embed("hello")) == 8
    assert pauses == [0.25, 0.5, 1.0]
    double.faults += [fault] * 4
    with pytest.raises(Unavailable, match="embeddings"):
        await embedder.embed("hello")
    assert len(await embedder.embed("hello")) == 8, "and then it goes on"


async def test_a_hang_ends_in_time_and_is_tried_again(make, double):
    embedder = make(limit=0.3)
    await embedder.describe()
    double.faults.append(Fault(hang=True))
    async with asyncio.timeout(10):
        assert len(await embedder.embed("hello")) == 8
        double.faults += [Fault(hang=True)] * 4
        with pytest.raises(Unavailable, match=r"did not answer within 0\.3 s"):
            await embedder.embed("hello")


ONE = b'{"object":"list","model":"m","data":[{"object":"embedding","index":0,"embedding":%s}]}'


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(body=b"<html>"), "no list of embeddings"),
        (Fault(body=b"[]"), "no list of embeddings"),
        (Fault(body=b'{"data":[{"index":0}]}'), "no list of embeddings"),
        (Fault(body=b'{"data":[]}'), "1 texts, 0 embeddings"),
        (Fault(body=ONE.replace(b'"index":0', b'"index":1') % b"[1]"), "1 texts, 1 embeddings"),
        (Fault(body=ONE % b'"***"'), "neither numbers nor base64"),
        (Fault(body=ONE % b'["a"]'), "neither numbers nor base64"),
        (Fault(body=ONE % b"[[1,2]]"), "no vector"),
        (Fault(body=ONE % b"[0,0,0,0,0,0,0,0]"), "no direction"),
        (Fault(body=ONE % b'"AADAf////38AAIA/AACAPwAAgD8AAIA/AACAPwAAgD8="'), "no direction"),
        (Fault(size=7), "8 dimensions are expected, 7 came"),
    ],
)
async def test_a_wrong_answer_is_never_used(make, double, pauses, fault, words):
    embedder = make()
    await embedder.describe()
    double.faults.append(fault)
    with pytest.raises(Unavailable, match=words):
        await embedder.embed("hello")
    assert pauses == []
    assert await embedder.embed("hello") == pytest.approx(unit("hello"), abs=1e-6)


async def test_dimensions_are_checked_before_the_replica_is_healthy(make, double):
    embedder = make(dimensions=5)
    double.faults.append(Fault(size=8))
    with pytest.raises(Unavailable, match="5 dimensions are expected, 8 came"):
        await embedder.check_health()
    await embedder.check_health()
    double.faults.append(Fault(500))
    await embedder.check_health()
    assert len(double.calls) == 2, "a provider's later failure is not the replica's"


async def test_a_provider_that_is_not_there_is_unavailable(make):
    embedder = make(url="http://127.0.0.1:1/v1")
    with pytest.raises(Unavailable, match="cannot be reached"):
        await embedder.embed("hello")


async def test_what_exceeds_the_window_is_left_out_and_neighbours_do_not_notice(make, double):
    embedder = make(lanes=1)
    await embedder.describe()
    long = "word " * 5000
    texts = ["short", long, "", "\ud800 half a character", "other"]
    vectors = await embedder.embed_many(texts)
    read = long[:MAX_CHARACTERS]
    while len(read) > double.window * 4:
        read = read[: len(read) // 2]
    wanted = [unit("short"), unit(read), unit(" "), unit("? half a character"), unit("other")]
    np.testing.assert_allclose(vectors, wanted, atol=1e-6)


async def test_a_text_that_the_provider_refuses_fails_alone(make, double):
    double.poison = "poison"
    embedder = make(lanes=1)
    await embedder.describe()
    texts = [*(f"text {number}" for number in range(40)), "poison"]
    answers = await asyncio.gather(*(embedder.embed(text) for text in texts), return_exceptions=True)
    assert isinstance(answers.pop(), Unavailable)
    np.testing.assert_allclose(answers, [unit(text) for text in texts[:-1]], atol=1e-6)


async def test_a_provider_that_refuses_everything_is_not_asked_for_ever(make, double):
    embedder = make(lanes=1)
    await embedder.describe()
    double.faults += [Fault(400)] * 1000
    answers = await asyncio.gather(*(embedder.embed(str(n)) for n in range(64)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {Unavailable}
    assert double.arrived < 90


async def test_the_key_is_read_when_it_is_needed_and_never_told(make, double, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    embedder = make()
    await embedder.describe()
    wrong = "key-wrong-hunter3"
    monkeypatch.setenv("BRAIN_EMBEDDER_KEY", wrong)
    with pytest.raises(Unavailable, match="401") as refused:
        await embedder.embed("hello")
    monkeypatch.delenv("BRAIN_EMBEDDER_KEY")
    with pytest.raises(Unavailable, match="environment variable BRAIN_EMBEDDER_KEY"):
        await embedder.embed("hello")
    monkeypatch.setenv("BRAIN_EMBEDDER_KEY", KEY)
    double.faults += [Fault(500, f"Bearer {KEY} broke it")] * 4
    with pytest.raises(Unavailable) as failed:
        await embedder.embed("hello")
    for told in (str(refused.value), str(failed.value), repr(embedder), caplog.text):
        assert KEY not in told
        assert wrong not in told


async def test_the_intent_classifier_trains_on_it(make, double, tmp_path):
    embedder = make(dimensions=64)
    classifier = IntentClassifier(embedder, cache=tmp_path)
    understood = await classifier.classify("where is my order?")
    assert len(understood.embedding) == 64
    calls = len(double.calls)
    again = IntentClassifier(make(dimensions=64), cache=tmp_path)
    assert (await again.classify("where is my order?")).intent == understood.intent
    assert len(double.calls) == calls + 2, "the kept head was used"
    other = IntentClassifier(make(dimensions=32), cache=tmp_path)
    assert len((await other.classify("where is my order?")).embedding) == 32
