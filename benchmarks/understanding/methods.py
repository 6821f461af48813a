"""What the study compares: each learns from examples and their vectors, and answers a message at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.understanding.data import Vectors
from benchmarks.understanding.tuned import tuned_head
from deployments.understanding import train
from deployments.understanding.calibration import log_softmax
from deployments.understanding.examples import explained
from deployments.understanding.training import REGULARISATION, Encode
from domain.understanding import Example, Prediction, Ranked

Matrix = NDArray[np.float32]


class Predicts(Protocol):
    """Names the intent of a text whose embedding is given."""

    def predict(self, text: str, embedding: Sequence[float]) -> Prediction: ...


Method = Callable[[Sequence[Example], Vectors, int], Predicts]  # examples, encoder, seed


@dataclass(frozen=True, slots=True)
class Scored:
    """What has (intents,) log probabilities; its out-of-scope score is what the best one leaves over."""

    labels: Sequence[str]
    logs: Callable[[str, Matrix], Matrix]

    def predict(self, text: str, embedding: Sequence[float]) -> Prediction:
        """The best one."""
        logs = self.logs(text, np.asarray(embedding, np.float32))
        best = int(logs.argmax())
        confidence = float(np.exp(logs[best]))
        return Prediction((Ranked(self.labels[best], confidence),), 1 - confidence)


def logistic(examples: Sequence[Example], encode: Encode, seed: int) -> Predicts:
    """The baseline."""
    return _linear(examples, encode, lambda vectors: vectors)


def logistic_with_names(examples: Sequence[Example], encode: Encode, seed: int) -> Predicts:
    """Names of intents as examples."""
    return _linear(_named(examples), encode, lambda vectors: vectors)


def logistic_whitened(examples: Sequence[Example], encode: Encode, seed: int) -> Predicts:
    """Names, and vectors in which the spread within intents is the same everywhere (shrunk by 0.3)."""
    vectors, intents, _ = _arrays(examples, encode)
    means = np.stack([vectors[intents == number].mean(0) for number in range(intents.max() + 1)])
    within = vectors - means[intents]
    spread = within.T @ within / max(1, len(vectors) - len(means))
    mixed = 0.7 * spread + 0.3 * np.trace(spread) / len(spread) * np.eye(len(spread))
    values, directions = np.linalg.eigh(mixed)
    centre, matrix = vectors.mean(0), (directions / np.sqrt(values)).astype(np.float32)

    def whitened(given: Matrix) -> Matrix:
        found = (given - centre) @ matrix
        return np.asarray(4 * found / np.linalg.norm(found, axis=-1, keepdims=True), np.float32)

    return _linear(_named(examples), encode, whitened, regularisation=1.0)


def prototypes(examples: Sequence[Example], encode: Encode, seed: int) -> Predicts:
    """The cosine with an intent's mean."""
    vectors, intents, labels = _arrays(examples, encode)
    means = np.stack([vectors[intents == number].mean(0) for number in range(len(labels))])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return Scored(labels, lambda text, embedding: log_softmax(20 * (means @ embedding)))


def neighbours(examples: Sequence[Example], encode: Encode, seed: int) -> Predicts:
    """All examples vote, with exp(20 cosine)."""
    vectors, intents, labels = _arrays(examples, encode)
    counts = np.bincount(intents)

    def logs(text: str, embedding: Matrix) -> Matrix:
        votes = np.bincount(intents, np.exp(20 * (vectors @ embedding - 1)), len(labels)) / counts
        return np.asarray(np.log(votes / votes.sum() + 1e-12), np.float32)

    return Scored(labels, logs)


def characters(examples: Sequence[Example], encode: Encode, seed: int) -> Predicts:
    """Logistic regression on tf-idf of 2 to 5 characters within words; no embedding."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    _, intents, labels = _arrays(examples, encode)
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    model = _fitted(vectorizer.fit_transform([example.text for example in examples]), intents, REGULARISATION)
    return Scored(labels, lambda text, embedding: model.predict_log_proba(vectorizer.transform([text]))[0])


def support_vectors(examples: Sequence[Example], encode: Encode, seed: int) -> Predicts:
    """A support vector machine with the Gaussian kernel; its probabilities are a softmax of its votes."""
    from sklearn.svm import SVC

    vectors, intents, labels = _arrays(_named(examples), encode)
    model = SVC(C=10, gamma=1.5, random_state=seed).fit(vectors, intents)
    return Scored(labels, lambda text, embedding: log_softmax(model.decision_function(embedding[None])[0]))


def first_head(examples: Sequence[Example], encode: Encode, seed: int) -> Predicts:
    """The product's, in a hurry."""
    return train(examples, encode, embedder="study", effort="first", seed=seed)


def best_head(examples: Sequence[Example], encode: Encode, seed: int) -> Predicts:
    """The product's."""
    return train(examples, encode, embedder="study", effort="best", seed=seed)


METHODS: dict[str, Method] = {
    "frozen encoder, logistic regression": logistic,
    "… names as examples": logistic_with_names,
    "… names, whitened": logistic_whitened,
    "prototypes": prototypes,
    "all neighbours": neighbours,
    "character n-grams": characters,
    "support vectors, names": support_vectors,
    "head, effort first": first_head,
    "head, effort best": best_head,
    "head, effort tuned": tuned_head,
}
STATED = (tuned_head,)  # they need what goes into the last layers
SLOW = ("support vectors, names", "character n-grams")  # with thousands of examples


def _named(examples: Sequence[Example]) -> list[Example]:
    return [*examples, *explained(sorted({example.intent for example in examples}), {})]


def _arrays(examples: Sequence[Example], encode: Encode) -> tuple[Matrix, NDArray[np.int64], list[str]]:
    labels = sorted({example.intent for example in examples})
    intents = np.array([labels.index(example.intent) for example in examples])
    return encode([example.text for example in examples]), intents, labels


def _linear(
    examples: Sequence[Example],
    encode: Encode,
    view: Callable[[Matrix], Matrix],
    regularisation: float = REGULARISATION,
) -> Predicts:
    vectors, intents, labels = _arrays(examples, encode)
    model = _fitted(view(vectors), intents, regularisation)
    weights, bias = model.coef_.astype(np.float32), model.intercept_.astype(np.float32)
    return Scored(labels, lambda text, embedding: log_softmax(weights @ view(embedding) + bias))


def _fitted(vectors: Any, intents: NDArray[np.int64], regularisation: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=regularisation, max_iter=300).fit(vectors, intents)
