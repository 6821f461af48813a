"""The heads that tenants train: how one is made, read, and measured."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments import intent_head
from deployments.intent_head import Head
from deployments.linear_model import LinearModel
from domain.clarifying import OTHER
from domain.errors import InvalidExamples
from domain.intents import Effort
from domain.understanding import Example, IntentModel

Matrix = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Matrix]
"""Texts as float32 (texts, dimensions), unit length."""
Progress = Callable[[float, str], None]
BINS = 15  # of the expected calibration error (Guo et al. 2017, arXiv:1706.04599)
CONFUSIONS = 50


@dataclass(frozen=True, slots=True)
class IntentScore:
    """`precision`, `recall` and `f1` in [0, 1], 0 where undefined."""

    intent: str
    examples: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """`count` examples of `intent` were taken for `predicted`."""

    intent: str
    predicted: str
    count: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Of the most probable intents; `confusions`: the most frequent first, at most CONFUSIONS."""

    accuracy: float
    macro_f1: float
    expected_calibration_error: float
    per_intent: tuple[IntentScore, ...]
    confusions: tuple[Confusion, ...]


def from_bytes(artefact: bytes) -> IntentModel:
    """Raises `ValueError` for what is no head of this code."""
    return LinearModel.from_bytes(artefact)


def check_examples(examples: Sequence[Example]) -> None:
    """Raises `InvalidExamples` naming what is wrong: an empty text, one text under two intents, one intent alone."""
    meant: dict[str, tuple[int, str]] = {}
    for number, one in enumerate(examples):
        if not one.text.strip():
            raise InvalidExamples(f"example {number} (of {one.intent!r}) has no text", f"examples.{number}.text")
        if not one.intent.strip():
            raise InvalidExamples(f"example {number} ({one.text[:80]!r}) has no intent", f"examples.{number}.intent")
        key = " ".join(one.text.casefold().split())
        before = meant.setdefault(key, (number, one.intent))
        if before[1] != one.intent:
            raise InvalidExamples(
                f"example {number} ({one.text[:80]!r}) is of {one.intent!r}, and example {before[0]} with the same text"
                f" of {before[1]!r}",
                f"examples.{number}",
            )
    named = {one.intent for one in examples} - {OTHER}
    if len({one.intent for one in examples}) < 2 or not named:
        only = f"only {next(iter(named))!r} has some" if named else "there are none"
        raise InvalidExamples(f"a head tells intents apart, so at least two need examples: {only}")


def train(
    examples: Sequence[Example],
    encode: Encode,
    *,
    embedder: str,
    descriptions: Mapping[str, str] | None = None,
    effort: Effort = "best",
    progress: Progress = lambda share, stage: None,
    seed: int = 0,
) -> IntentModel:
    """A head of `examples`. `embedder`: name and revision of what encodes. `descriptions` of intents count as examples
    with effort `best`. `progress` hears a share in [0, 1], and what is done next. Raises `InvalidExamples`."""
    check_examples(examples)
    told = list(examples)
    if effort == "best":
        named = {one.intent for one in examples}
        told += [Example(text, name) for name, text in (descriptions or {}).items() if name in named]
    progress(0.0, "embedding")
    vectors = encode([one.text for one in told])
    progress(0.8, "fitting")
    head = _fitted(vectors, [one.intent for one in told])
    progress(1.0, "done")
    return LinearModel(head, embedder)


def _fitted(vectors: Matrix, intents: Sequence[str]) -> Head:
    head = intent_head.train(vectors, intents)  # type: ignore[arg-type]
    if len(head.labels) > len(head.weights):  # of two intents scikit-learn keeps one row: the second against the first
        zero = np.zeros_like(head.weights)
        return Head(head.labels, np.vstack([zero, head.weights]), np.concatenate([[np.float32(0)], head.bias]))
    return head


def evaluate(model: IntentModel, examples: Sequence[Example], encode: Encode) -> Evaluation:
    """How good `model` is on examples, which must be some."""
    vectors = encode([one.text for one in examples])
    found = [model.predict(one.text, vector).ranked[0] for one, vector in zip(examples, vectors, strict=True)]
    hits, given, meant = Counter[str](), Counter[str](), Counter[str]()
    confused = Counter[tuple[str, str]]()
    bins: dict[int, list[float]] = defaultdict(list)
    for one, best in zip(examples, found, strict=True):
        right = best.name == one.intent
        meant[one.intent] += 1
        given[best.name] += 1
        hits[one.intent] += right
        bins[min(int(best.confidence * BINS), BINS - 1)].append(best.confidence - right)
        if not right:
            confused[one.intent, best.name] += 1
    scores = [_score(name, hits[name], given[name], meant[name]) for name in sorted(meant)]
    return Evaluation(
        sum(hits.values()) / len(examples),
        sum(one.f1 for one in scores) / len(scores),
        sum(abs(sum(gaps)) for gaps in bins.values()) / len(examples),
        tuple(scores),
        tuple(Confusion(*pair, count) for pair, count in confused.most_common(CONFUSIONS)),
    )


def _score(name: str, hits: int, given: int, meant: int) -> IntentScore:
    return IntentScore(name, meant, hits / given if given else 0.0, hits / meant, 2 * hits / (given + meant))
