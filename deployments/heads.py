"""The heads that tenants train: a logistic regression over embeddings, as `domain.understanding.IntentModel`."""

import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deployments import intent_head
from deployments.intent_head import Head
from domain.clarifying import OTHER
from domain.errors import InvalidExamples
from domain.intents import Effort
from domain.understanding import Example, IntentModel, Prediction, Ranked

Matrix = NDArray[np.float32]
THRESHOLD = 0.3
"""Below it a message is out of scope; chosen on intents/validation.yaml, see `IntentClassifier`."""
RANKED = 5
FORMAT = 1
BINS = 15  # of the expected calibration error (Guo et al. 2017, arXiv:1706.04599)


class Encode(Protocol):
    """Texts as vectors, by the embedder of this name and revision."""

    @property
    def embedder(self) -> str: ...

    def __call__(self, texts: Sequence[str]) -> Matrix:
        """float32 (texts, dimensions), unit length."""
        ...


@dataclass(frozen=True, slots=True)
class LinearModel:
    """An `IntentModel`: `head`'s softmax, whose largest probability of a named intent says whether it is one."""

    head: Head
    embedder: str = ""
    threshold: float = THRESHOLD

    @property
    def labels(self) -> tuple[str, ...]:
        return self.head.labels

    def predict(self, text: str, embedding: Sequence[float]) -> Prediction:
        probabilities = self.head.probabilities(embedding)
        order = np.argsort(-probabilities)
        ranked = [Ranked(self.head.labels[i], float(probabilities[i])) for i in order[: RANKED + 1]]
        named = next(one.confidence for one in ranked if one.name != OTHER)
        out = ranked[0].name == OTHER or named < self.threshold
        return Prediction(tuple(ranked[:RANKED]), 1 - named, out)

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        told = json.dumps({"format": FORMAT, "embedder": self.embedder, "labels": self.head.labels})
        np.savez_compressed(buffer, told=np.array(told), weights=self.head.weights, bias=self.head.bias)
        return buffer.getvalue()


def from_bytes(artefact: bytes) -> IntentModel:
    """Raises `ValueError` for what is no head of this code."""
    try:
        with np.load(io.BytesIO(artefact), allow_pickle=False) as file:
            told, weights, bias = json.loads(str(file["told"])), file["weights"], file["bias"]
        labels = tuple(map(str, told["labels"]))
        fits = told["format"] == FORMAT and weights.shape[0] == len(labels) == bias.shape[0] >= 2
    except Exception as error:  # zipfile, numpy and json each have errors of their own for broken data
        raise ValueError(f"the head cannot be read: {error}") from error
    if not fits or not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise ValueError("the head is of another kind, or broken")
    return LinearModel(Head(labels, weights.astype(np.float32), bias.astype(np.float32)), told["embedder"])


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
    descriptions: Mapping[str, str] | None = None,
    effort: Effort = "first",
    progress: Callable[[float], None] = lambda share: None,
    seed: int = 0,
) -> IntentModel:
    """A head of `examples`. `descriptions` of intents count as examples with effort `best`. `progress` hears a share in
    [0, 1]. Raises `InvalidExamples`."""
    check_examples(examples)
    told = list(examples)
    if effort == "best":
        named = {one.intent for one in examples}
        told += [Example(text, name) for name, text in (descriptions or {}).items() if name in named]
    vectors = encode([one.text for one in told])
    progress(0.8)
    head = _fitted(vectors, [one.intent for one in told])
    progress(1.0)
    return LinearModel(head, encode.embedder)


def _fitted(vectors: Matrix, intents: Sequence[str]) -> Head:
    head = intent_head.train(vectors, intents)  # type: ignore[arg-type]
    if len(head.labels) > len(head.weights):  # of two intents scikit-learn keeps one row: the second against the first
        zero = np.zeros_like(head.weights)
        return Head(head.labels, np.vstack([zero, head.weights]), np.concatenate([[np.float32(0)], head.bias]))
    return head


def evaluate(model: IntentModel, examples: Sequence[Example], encode: Encode) -> dict[str, Any]:
    """`accuracy`, `macro_f1` and `expected_calibration_error` of the most probable intent; `per_intent` and
    `confusions`, the most frequent ones first."""
    vectors = encode([one.text for one in examples])
    found = [model.predict(one.text, vector).ranked[0] for one, vector in zip(examples, vectors, strict=True)]
    hits, given, meant = Counter[str](), Counter[str](), Counter[str]()
    confused = Counter[tuple[str, str]]()
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for one, best in zip(examples, found, strict=True):
        right = best.name == one.intent
        meant[one.intent] += 1
        given[best.name] += 1
        hits[one.intent] += right
        bins[min(int(best.confidence * BINS), BINS - 1)].append((best.confidence, right))
        if not right:
            confused[one.intent, best.name] += 1
    per_intent: list[dict[str, Any]] = [
        {
            "name": name,
            "examples": meant[name],
            "precision": hits[name] / given[name] if given[name] else 0.0,
            "recall": hits[name] / meant[name],
            "f1": 2 * hits[name] / (given[name] + meant[name]),
        }
        for name in sorted(meant)
    ]
    gaps = [abs(sum(confidence - right for confidence, right in group)) for group in bins.values()]
    return {
        "accuracy": sum(hits.values()) / len(examples),
        "macro_f1": sum(one["f1"] for one in per_intent) / len(per_intent),
        "expected_calibration_error": sum(gaps) / len(examples),
        "per_intent": per_intent,
        "confusions": [
            {"intent": intent, "taken_for": other, "count": count}
            for (intent, other), count in confused.most_common(50)
        ],
    }
