"""How good a model is on examples that it has not seen."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.understanding.training import Encode
from deployments.understanding.tuned_head import TunedHead
from deployments.understanding.tuned_training import StatesOf
from domain.errors import InvalidExamples
from domain.understanding import Example, IntentModel

BINS = 15
CONFUSIONS = 50


@dataclass(frozen=True, slots=True)
class IntentScore:
    """`examples`: how many there were; `precision`, `recall` and `f1` in [0, 1], 0 where undefined."""

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
    """`macro_f1`: the mean over the intents that occur in the examples; `confusions`: the most frequent first, at most
    CONFUSIONS. An answer's confidence and its truth give `expected_calibration_error`."""

    accuracy: float
    macro_f1: float
    expected_calibration_error: float
    per_intent: tuple[IntentScore, ...]
    confusions: tuple[Confusion, ...]


def evaluate(
    model: IntentModel, examples: Sequence[Example], encode: Encode, states_of: StatesOf | None = None
) -> Evaluation:
    """`states_of`: texts → their states, for a tuned head.

    Raises `InvalidExamples` without examples; what `encode` and `states_of` raise is passed on.
    """
    if not examples:
        raise InvalidExamples("there are no examples to evaluate with")
    texts = [example.text for example in examples]
    embeddings = encode(texts)
    if isinstance(model, TunedHead) and states_of is not None:
        found = map(model.predict, texts, embeddings, states_of(texts))
    else:
        found = map(model.predict, texts, embeddings)
    first = [answer.ranked[0] for answer in found]
    return scored([example.intent for example in examples], [(best.name, best.confidence) for best in first])


def scored(intents: Sequence[str], answers: Sequence[tuple[str, float]]) -> Evaluation:
    """From the true intents and (answer, confidence) of each."""
    names = [name for name, _ in answers]
    right = np.array([name == intent for name, intent in zip(names, intents, strict=True)])
    true, given = Counter(intents), Counter(names)
    hits = Counter(intent for intent, is_right in zip(intents, right.tolist(), strict=True) if is_right)
    per_intent = tuple(_score(intent, true[intent], given[intent], hits[intent]) for intent in sorted(true))
    wrong = Counter((intent, name) for intent, name in zip(intents, names, strict=True) if intent != name)
    return Evaluation(
        accuracy=float(right.mean()),
        macro_f1=float(np.mean([score.f1 for score in per_intent])),
        expected_calibration_error=calibration_error(np.array([confidence for _, confidence in answers]), right),
        per_intent=per_intent,
        confusions=tuple(Confusion(*pair, count) for pair, count in wrong.most_common(CONFUSIONS)),
    )


def calibration_error(confidences: NDArray[Any], right: NDArray[Any]) -> float:
    """In `BINS` bins of equal width (Guo et al. 2017, arXiv:1706.04599)."""
    bins = np.minimum((confidences * BINS).astype(int), BINS - 1)
    gaps = [
        (bins == number).mean() * abs(confidences[bins == number].mean() - right[bins == number].mean())
        for number in np.unique(bins)
    ]
    return float(sum(gaps))


def _score(intent: str, true: int, given: int, hits: int) -> IntentScore:
    precision, recall = hits / given if given else 0.0, hits / true
    return IntentScore(intent, true, precision, recall, 2 * hits / (true + given))
