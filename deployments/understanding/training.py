"""From examples to a head: seconds on a CPU, in a plain process.

`train` blocks, and needs the embedder only for `encode`; run it away from whatever serves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deployments.understanding import grams
from deployments.understanding.calibration import (
    FALSE_ALARMS,
    Scope,
    floored_log,
    log_softmax,
    log_total,
    scope,
    weighed,
)
from deployments.understanding.examples import check_examples, different, explained
from deployments.understanding.grams import Floats, Sparse
from deployments.understanding.head import Head, Linear, Mixture
from deployments.understanding.kernel_ridge import Fit, Index, Kernel, chosen_landmarks, fit, one_hot
from domain.understanding import Example

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
Effort = Literal["first", "best"]  # of `train`
Progress = Callable[[float, str], None]

REGULARISATION = 20.0  # scikit-learn's C
FOLDS = 5
FEWEST_VALIDATION = 50  # texts in scope; fewer say little of their last twenty-fifth
MANY = 2000  # examples, from which on a second view pays
LEAST = 0.01  # of the scores themselves: what lies below the logs' floor keeps its order
TOGETHER = 256  # texts embedded between two signs of life


def train(
    examples: Sequence[Example],
    encode: Encode,
    *,
    embedder: str,
    descriptions: Mapping[str, str] | None = None,
    validation: Sequence[Example] = (),
    effort: Effort = "best",
    progress: Progress = lambda share, stage: None,
    seed: int = 0,
) -> Head:
    """A head for the intents of `examples`; names and `descriptions` of intents are examples too.

    `encode`: texts → float32 (texts, dimensions), unit length. `embedder`: name and revision of what encodes. "first"
    leaves out the second view, which pays from MANY examples on. `progress`: called with the share done, in [0, 1], and
    what is done next. The same arguments make the same head.

    Raises `InvalidExamples`; what `encode` raises is passed on.
    """
    check_examples(examples)
    own = different(examples)
    labels = tuple(sorted({example.intent for example in own}))
    said = explained(labels, descriptions or {})
    texts = [example.text for example in (*own, *said)]
    numbers = {label: number for number, label in enumerate(labels)}
    intents = np.array([numbers[example.intent] for example in (*own, *said)], np.int64)
    embeddings = _embedded(texts, encode, lambda share: progress(0.5 * share, "embedding"))
    frequencies = grams.inverse_frequencies(texts)
    words = grams.matrix(texts, frequencies)
    generator = np.random.default_rng(seed)
    real = np.arange(len(own))

    progress(0.5, "fitting")
    kernel = Kernel()
    landmarks = chosen_landmarks(intents, np.arange(len(own), len(texts)), generator)
    found = fit(kernel, embeddings, words, one_hot(intents, len(labels)), landmarks)
    alone = found.without_each()[real]
    linear = Linear(np.zeros((len(labels), embeddings.shape[1]), np.float32), np.zeros(len(labels), np.float32))
    if effort == "first" or len(own) < MANY:
        progress(0.9, "calibrating")
        first, second = weighed([alone, floored_log(alone)], intents[real])[0]
        mixture = Mixture(max(first, LEAST), second, 0.0)
    else:
        progress(0.6, "fitting the second view")
        linear = _logistic(embeddings, intents, len(labels))
        unseen = _out_of_fold(embeddings, intents, len(labels), real, generator, progress)
        progress(0.9, "calibrating")
        first, second = weighed([alone, unseen], intents[real])[0]
        mixture = Mixture(first, 0.0, second)
    limits = _scope(found, alone, intents, len(own), len(labels), generator)
    head = Head(
        labels,
        embedder,
        kernel,
        embeddings[landmarks],
        _rows(words, landmarks),
        frequencies,
        found.weights,
        linear,
        mixture,
        limits,
    )
    inside = [example for example in validation if example.intent in numbers]
    if len(inside) >= FEWEST_VALIDATION:
        vectors = encode([example.text for example in inside])
        totals = [log_total(head.scores(one.text, vector)[0]) for one, vector in zip(inside, vectors, strict=True)]
        head = replace(head, scope=limits.at(float(np.quantile(totals, FALSE_ALARMS))))
    progress(1.0, "done")
    return head


def _embedded(texts: Sequence[str], encode: Encode, progress: Callable[[float], None]) -> Floats:
    """In half precision, as the artefact holds them."""
    found = []
    for start in range(0, len(texts), TOGETHER):
        progress(start / len(texts))
        found.append(np.asarray(encode(texts[start : start + TOGETHER]), np.float32))
    return np.concatenate(found).astype(np.float16).astype(np.float32)


def _logistic(embeddings: Floats, intents: Index, count: int) -> Linear:
    """Every intent occurs; two of them are one row in scikit-learn, and two here."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=REGULARISATION, max_iter=300).fit(embeddings, intents)
    weights, bias = model.coef_.astype(np.float32), model.intercept_.astype(np.float32)
    if count == 2:
        return Linear(np.concatenate([-weights / 2, weights / 2]), np.concatenate([-bias / 2, bias / 2]))
    return Linear(weights, bias)


def _out_of_fold(
    embeddings: Floats, intents: Index, count: int, real: Index, generator: np.random.Generator, progress: Progress
) -> Floats:
    """(real examples, intents) log probabilities by models that have not seen them."""
    folds = np.empty(len(real), np.int64)
    for intent in range(count):
        own = generator.permutation(np.flatnonzero(intents[real] == intent))
        folds[own] = (np.arange(len(own)) + intent) % FOLDS
    found = np.empty((len(real), count), np.float32)
    for fold in range(FOLDS):
        progress(0.65 + 0.25 * fold / FOLDS, "fitting the second view")
        held = real[folds == fold]
        rest = np.setdiff1d(np.arange(len(intents)), held)
        model = _logistic(embeddings[rest], intents[rest], count)
        found[held] = log_softmax(embeddings[held] @ model.weights.T + model.bias)
    return found


def _scope(found: Fit, alone: Floats, intents: Index, own: int, count: int, generator: np.random.Generator) -> Scope:
    """Foreign texts are those of intents that are left out, a fifth of them at a time."""
    order = generator.permutation(count)
    foreign = []
    for group in np.array_split(order, min(FOLDS, count)):
        rows = np.flatnonzero(np.isin(intents, group))
        foreign.append(log_total(found.without(rows)[rows < own]))
    return scope(log_total(alone), np.concatenate(foreign))


def _rows(words: Sparse, index: Index) -> Sparse:
    kept = [slice(words.starts[i], words.starts[i + 1]) for i in index]
    starts = np.cumsum([0] + [part.stop - part.start for part in kept]).astype(np.int32)
    return Sparse(
        starts,
        np.concatenate([words.buckets[part] for part in kept]),
        np.concatenate([words.values[part] for part in kept]),
    )
