"""The packaged complexity scorer, with the real embedder; and its artefact."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from deployments.complexity import PACKAGED, ComplexityScorer, from_bytes, load, pack, to_bytes, unpack
from deployments.complexity_features import NAMES, features
from deployments.complexity_parts import Trees
from deployments.complexity_ranks import packaged_ranks
from deployments.embedder import Embedder
from deployments.intent_classifier import IntentClassifier
from domain.embedding import EmbedderInfo, Embedding
from tests.unit.intents_world import SHARED

CHOICES = "\nA. {}\nB. {}\nC. {}\nD. {}\nAnswer:"
EASY = [
    "Which of these is a mammal?" + CHOICES.format("a whale", "a shark", "a salmon", "a trout"),
    "In which country is the city of Paris?" + CHOICES.format("France", "Spain", "Italy", "Greece"),
    "What does a thermometer measure?" + CHOICES.format("temperature", "pressure", "weight", "speed"),
    "Tom has 3 apples and buys 4 more. How many apples does he have?",
    "A pen costs $2. How much do 5 pens cost?",
    "Anna reads 10 pages a day. How many pages does she read in a week?",
]
HARD = [
    "Let p be a prime. How many abelian groups of order p^4 are there up to isomorphism?"
    + CHOICES.format("3", "4", "5", "7"),
    "A 2 kg block slides down a 30 degree incline with friction coefficient 0.2. What is its acceleration in m/s^2?"
    + CHOICES.format("1.7", "3.2", "4.9", "6.6"),
    "Statement 1| Every continuous function on [0, 1] is differentiable. Statement 2| Every bounded sequence converges."
    + CHOICES.format("True, True", "False, False", "True, False", "False, True"),
    "A train leaves at 60 miles per hour, and 45 minutes later a second one leaves at 80 miles per hour. A third of "
    "the way into its trip the second one slows down by 25%, and rests for 10 minutes every 2 hours. After how many "
    "minutes has the second train covered as many miles as the first, if the first one stops for half an hour?",
    "Mia sells 40% of her 250 stamps at $1.50 each, a fifth of the remaining at twice that price, and trades the rest "
    "at a rate of 3 stamps for 2 coins worth $4.25 each, less a fee of 5%. How many dollars does she have in total?",
    "A tank of 900 liters is filled by two pipes, at 12 and 18 liters per minute, while a leak loses 5% of the volume "
    "every 10 minutes. How many liters are in the tank after 30 minutes, if the second pipe starts 5 minutes later?",
]
WORD_PROBLEMS = 3  # from here on, in both
STRANGE = [
    "",
    " ",
    "a" * 32_000,
    "9" * 32_000,
    "1.2.3.4 " * 4000,
    "😀" * 500,
    "\ud800",
    "\x00\n\t",
    "٣ + ²",
    "A. \nB. ",
]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder(threads=1)


@pytest.fixture(scope="module")
def scorer() -> ComplexityScorer:
    return load(PACKAGED)


async def test_easy_messages_score_lower_than_hard_ones(scorer: ComplexityScorer, embedder: Embedder) -> None:
    easy = [scorer.score(text, await embedder.embed(text)) for text in EASY]
    hard = [scorer.score(text, await embedder.embed(text)) for text in HARD]
    assert statistics.fmean(hard) > statistics.fmean(easy) + 0.02, (easy, hard)
    above = [more > less for more in hard for less in easy]
    assert sum(above) / len(above) > 0.6, (easy, hard)  # not all: what is too hard for both models scores low too
    assert min(hard[WORD_PROBLEMS:]) > statistics.fmean(easy[WORD_PROBLEMS:])


@pytest.mark.parametrize("text", STRANGE, ids=range(len(STRANGE)))
async def test_any_text_has_a_probability(scorer: ComplexityScorer, embedder: Embedder, text: str) -> None:
    assert np.isfinite(features([text]).rows).all()
    vector = await embedder.embed(text)
    for embedding in (vector, None, [0.0] * 384):
        assert 0 <= scorer.score(text, embedding) <= 1
    assert scorer.score(text, vector) == scorer.score(text, vector)


def test_many_at_once_score_as_one_by_one(scorer: ComplexityScorer) -> None:
    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(len(HARD), 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    together = scorer.scores(features(HARD), vectors)
    alone = [scorer.score(text, vector) for text, vector in zip(HARD, vectors.tolist(), strict=True)]
    np.testing.assert_allclose(together, alone, atol=0.01)  # one by one, parts of little share are left out


def test_features_say_what_the_text_shows() -> None:
    [row] = features(["How many of the 12 eggs cost $3.50?\nA. 4\nB. 12 1/2\n"]).rows
    found = dict(zip(NAMES, row, strict=True))
    assert found["options"] == 2
    assert found["says 'how many'"] == 1
    assert found["log largest number"] == pytest.approx(np.log1p(12))
    assert found["log dollars"] == pytest.approx(np.log(2))
    assert found["log money words"] == pytest.approx(np.log(2))
    assert found["decimals"] == 1


def test_what_lies_far_back_bounds_the_time(scorer: ComplexityScorer) -> None:
    start = "word " * 1000
    rows = features([start + "x" * 5000, start + "12 34?" * 2000 + "y"]).rows
    differing = [name for name, one, other in zip(NAMES, *rows, strict=True) if one != other]
    assert differing == ["log characters"]


def test_an_embedding_of_another_model_is_refused(scorer: ComplexityScorer) -> None:
    with pytest.raises(ValueError, match="384 dimensions"):
        scorer.score("hello", [0.1] * 768)


def test_the_artefact_is_small_and_tells_where_it_comes_from(scorer: ComplexityScorer) -> None:
    assert PACKAGED.stat().st_size < 1_000_000
    assert scorer.provenance["prompts"] == {"mmlu": 14042, "gsm8k": 1319}
    assert "Apache-2.0" in scorer.provenance["licence"]
    assert json.loads(PACKAGED.with_suffix(".json").read_text()).items() <= scorer.provenance.items()


def test_saved_and_read_again_it_is_the_same(scorer: ComplexityScorer) -> None:
    data = to_bytes(scorer)
    assert to_bytes(from_bytes(data)) == data
    assert from_bytes(data).score(HARD[0], None) == scorer.score(HARD[0], None)


def changed(change: Callable[[dict[str, object], dict[str, object]], object]) -> bytes:
    """The packaged artefact, with something in it changed."""
    header, arrays = unpack(PACKAGED.read_bytes(), "brain-complexity", 1)
    change(header, arrays)
    kind, version = header.pop("format"), header.pop("version")
    return pack(kind, version, header, arrays)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda: b"", "cannot be read"),
        (lambda: b"not a zip", "cannot be read"),
        (lambda: PACKAGED.read_bytes()[:-2000], "cannot be read"),
        (lambda: changed(lambda header, _: header.update(version=2)), "of version 2"),
        (lambda: changed(lambda header, _: header.update(features=["length"])), "other text features"),
        (lambda: changed(lambda _, arrays: arrays.pop("mmlu.leaves")), "missing"),
        (lambda: changed(lambda _, arrays: arrays.update({"mmlu.words": np.zeros(3)})), "do not fit"),
        (lambda: changed(lambda _, arrays: arrays.update({"gate.bias": np.array([np.nan, 0])})), "not finite"),
        (lambda: changed(lambda _, arrays: arrays["mmlu.columns"].fill(200)), "do not fit"),
    ],
)
def test_a_corrupted_artefact_says_what_is_wrong(data: Callable[[], bytes], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "scorer.npz"
    path.write_bytes(data())
    with pytest.raises(ValueError, match=reason) as raised:
        load(path)
    assert str(path) in str(raised.value)


def test_trees_go_right_above_a_threshold() -> None:
    trees = Trees(np.array([[0, 1, 1]], np.uint8), np.array([[0.5, 1.0, 2.0]], np.float32), np.array([[1, 2, 3, 4.0]]))
    rows = np.array([[0, 1], [0, 1.5], [1, 2], [1, 2.5], [0.5, 0]], np.float32)
    assert trees.predict(rows).tolist() == [1, 2, 3, 4, 1]


def test_a_decision_takes_little_time(scorer: ComplexityScorer) -> None:
    vector = [0.05] * 384
    taken = []
    for text in HARD * 20:
        began = time.thread_time()
        scorer.score(text, vector)
        taken.append(time.thread_time() - began)
    assert statistics.median(taken) < 0.002


class Described:
    """A real embedder under another name."""

    def __init__(self, embedder: Embedder, name: str) -> None:
        self._embedder, self._name = embedder, name

    async def embed(self, text: str) -> Embedding:
        return await self._embedder.embed(text)

    async def embed_many(self, texts: Sequence[str]) -> Sequence[Embedding]:
        return await self._embedder.embed_many(texts)

    async def describe(self) -> EmbedderInfo:
        return EmbedderInfo(self._name, 384, 256, "1")


class Constant:
    """Another scorer."""

    def score(self, text: str, embedding: Sequence[float] | None) -> float:
        return 0.25 if embedding is not None else 0.5


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SHARED)
    return path


async def test_the_classifier_hands_on_the_complexity(embedder: Embedder, examples: Path) -> None:
    understood = await IntentClassifier(embedder, examples=examples).classify(HARD[0])
    assert understood.complexity == pytest.approx(packaged_ranks().score(HARD[0], understood.embedding))


async def test_with_another_embedder_the_text_alone_is_judged(embedder: Embedder, examples: Path) -> None:
    understood = await IntentClassifier(Described(embedder, "another"), examples=examples).classify(HARD[0])
    assert understood.complexity == pytest.approx(packaged_ranks().score(HARD[0], None))


async def test_the_classifier_takes_another_scorer(embedder: Embedder, examples: Path) -> None:
    classifier = IntentClassifier(Described(embedder, "another"), examples=examples, complexity=Constant())
    assert (await classifier.classify("hello")).complexity == 0.25
