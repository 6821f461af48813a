"""The real packaged model and its head, without a cluster."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from deployments.embedder import Embedder
from deployments.head_cache import load
from deployments.intent_classifier import IntentClassifier
from deployments.intent_head import GENERAL, read_examples
from deployments.list_places import ListPlaces
from domain.embedding import EmbedderInfo, Embedding
from domain.errors import Overloaded, Unavailable
from domain.understanding import Example

HELD_OUT = Path(__file__).parent / "intents_held_out.yaml"
SMALL = (
    "greeting: [hello, hi, good morning, hey, good evening]\n"
    "payment: [pay by card, my invoice, a bank transfer, credit card, how can I pay]\n"
    "other: [a poem, the weather, chess, a song, cooking]\n"
)


class Watched:
    """A real embedder that counts its calls, holds messages back while `answer` is not set, and can break."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.messages: list[str] = []
        self.lists = 0
        self.broken = False
        self.answer, self.list_answer = asyncio.Event(), asyncio.Event()
        self.answer.set()
        self.list_answer.set()

    async def embed(self, text: str) -> Embedding:
        self.messages.append(text)
        await self.answer.wait()
        return await self._embedder.embed(text)

    async def embed_many(self, texts: Sequence[str]) -> Sequence[Embedding]:
        self.lists += 1
        if self.broken:
            raise Unavailable("no embedder")
        await self.list_answer.wait()
        return await self._embedder.embed_many(texts)

    async def describe(self) -> EmbedderInfo:
        return await self._embedder.describe()


@pytest.fixture(scope="module")
def model() -> Embedder:
    return Embedder()


@pytest.fixture
def embedder(model: Embedder) -> Watched:
    return Watched(model)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def classifier(embedder: Watched, cache: Path) -> IntentClassifier:
    return IntentClassifier(embedder, cache=cache)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


async def test_held_out_messages_are_understood(classifier: IntentClassifier) -> None:
    held_out = read_examples(HELD_OUT)
    assert not {text for text, _ in held_out} & {text for text, _ in read_examples(GENERAL)}
    found = await asyncio.gather(*(classifier.classify(text) for text, _ in held_out))
    wrong = [
        (text, intent, u.intent) for (text, intent), u in zip(held_out, found, strict=True) if u.intent.name != intent
    ]
    assert len(wrong) <= 0.15 * len(held_out), wrong


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("Hello!", "greeting"),
        ("Bye, see you", "goodbye"),
        ("Thank you!", "thanks"),
        ("Where is my order #1234?", "order_status"),
        ("I want to cancel my order", "cancel_order"),
        ("I'd like my money back", "refund"),
        ("Let me talk to a human", "human_agent"),
        ("I'm looking for running shoes", "product_search"),
        ("What are your opening hours?", "store_info"),
        ("Why is the moon round?", "other"),
    ],
)
async def test_plain_messages_have_plain_intents(classifier: IntentClassifier, text: str, intent: str) -> None:
    assert (await classifier.classify(text)).intent.name == intent


async def test_a_message_is_embedded_once_and_its_vector_handed_on(
    classifier: IntentClassifier, embedder: Watched, model: Embedder
) -> None:
    await classifier.prepare()
    lists = embedder.lists
    understood = await classifier.classify("where is my parcel?")
    assert embedder.messages == ["where is my parcel?"]
    assert embedder.lists == lists
    np.testing.assert_allclose(understood.embedding, await model.embed("where is my parcel?"), atol=1e-5)


async def test_the_ranking_holds_five_and_the_best_first(classifier: IntentClassifier) -> None:
    understood = await classifier.classify("can I pay with my credit card?")
    confidences = [intent.confidence for intent in understood.ranked]
    assert understood.intent == understood.ranked[0]
    assert understood.intent.parameters == {}
    assert len(confidences) == 5
    assert confidences == sorted(confidences, reverse=True)
    assert 0 < sum(confidences) <= 1 + 1e-5


async def test_below_the_threshold_the_intent_is_other(embedder: Watched, cache: Path) -> None:
    classifier = IntentClassifier(embedder, threshold=1.1, cache=cache)
    understood = await classifier.classify("can I pay with my credit card?")
    assert understood.intent.name == "other"
    assert understood.ranked[0].name == "payment"
    assert understood.intent.confidence == pytest.approx(1 - understood.ranked[0].confidence)


async def test_the_head_is_trained_once_and_kept(embedder: Watched, tmp_path: Path, small: Path) -> None:
    first = IntentClassifier(embedder, cache=tmp_path / "cache", examples=small)
    await asyncio.gather(*(first.classify("hello") for _ in range(5)))
    second = IntentClassifier(embedder, cache=tmp_path / "cache", examples=small)
    await second.check_health()
    assert embedder.lists == 1
    assert (await first.classify("my card")).ranked == (await second.classify("my card")).ranked
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npz"]


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut short"])
async def test_a_broken_cache_is_ignored_with_a_warning_and_written_again(
    embedder: Watched, tmp_path: Path, small: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await IntentClassifier(embedder, cache=tmp_path / "cache", examples=small).prepare()
    [path] = (tmp_path / "cache").iterdir()
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        await IntentClassifier(embedder, cache=tmp_path / "cache", examples=small).classify("hello")
    assert "ignored" in caplog.text
    name = f"{(info := await embedder.describe()).name}@{info.revision}"
    assert load(path, name, 384).labels == ("greeting", "other", "payment")
    for other in ((name, 768), ("another", 384)):
        with pytest.raises(ValueError, match="another embedder"):
            load(path, *other)


async def test_a_cache_that_cannot_be_written_costs_only_a_warning(
    embedder: Watched, small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    understood = await IntentClassifier(embedder, cache=small, examples=small).classify("hello")
    assert understood.ranked
    assert "cannot be written" in caplog.text


async def test_one_call_too_many_is_refused_and_the_others_are_served(embedder: Watched, small: Path) -> None:
    classifier = IntentClassifier(embedder, max_waiting=2, examples=small)
    embedder.answer.clear()
    waiting = [asyncio.create_task(classifier.classify("hello")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await classifier.classify("hello")
    embedder.answer.set()
    assert len(await asyncio.gather(*waiting)) == 2
    assert await classifier.classify("hello")


async def test_few_lists_are_worked_on_at_once_and_fewer_of_one_tenant(embedder: Watched, small: Path) -> None:
    classifier = IntentClassifier(embedder, examples=small, lists=ListPlaces(at_once=3, of_one=2))
    await classifier.prepare()
    embedder.list_answer.clear()
    known = [Example("hello", "greeting")]
    waiting = [
        asyncio.create_task(classifier.classify_many(["hello"], "a")),
        asyncio.create_task(classifier.evaluate(known, "a")),
        asyncio.create_task(classifier.evaluate(known, "b")),
    ]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 lists of texts of this tenant are under way"):
        await classifier.classify_many(["hello"], "a")
    with pytest.raises(Overloaded, match="too many lists of texts"):
        await classifier.evaluate(known, "c")
    assert await classifier.classify("hello", "a"), "messages go on"
    embedder.list_answer.set()
    await asyncio.gather(*waiting)
    assert await classifier.evaluate(known, "c") and await classifier.classify_many(["hello"], "a")


async def test_a_cancelled_call_leaves_its_place_and_does_not_end_the_training(embedder: Watched, small: Path) -> None:
    classifier = IntentClassifier(embedder, max_waiting=2, examples=small)
    gone, stays = (asyncio.create_task(classifier.classify("hello")) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert gone.cancelled()
    assert (await stays).ranked
    assert len(await asyncio.gather(classifier.classify("hi"), classifier.classify("hi"))) == 2
    assert embedder.lists == 1


async def test_a_failed_training_is_tried_again_by_the_next_call(embedder: Watched, small: Path) -> None:
    classifier = IntentClassifier(embedder, examples=small)
    embedder.broken = True
    with pytest.raises(Unavailable):
        await classifier.classify("hello")
    embedder.broken = False
    assert (await classifier.classify("hello")).ranked
