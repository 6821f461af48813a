"""A head over vectors of a last layer that is tuned to its intents: studied, and not part of the service.

docs/understanding.md says what came of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.understanding.data import Vectors
from benchmarks.understanding.last_layer import Tail, last_layer
from benchmarks.understanding.tuning import embedded, tune
from deployments.understanding import Head, grams, train
from deployments.understanding.calibration import floored_log, log_total, weighed
from deployments.understanding.examples import different, explained
from deployments.understanding.grams import Floats, Sparse
from deployments.understanding.head import Mixture
from deployments.understanding.kernel_ridge import Fit, Index, Kernel, fit, one_hot
from domain.understanding import Example, Prediction, Ranked

HELD = 4  # every fourth example of an intent calibrates, by a layer that was tuned to the others
LEAST = 0.01


@dataclass(frozen=True, slots=True)
class Tuned:
    """`over` ranks what `tail` makes of a text; `plain` says how far it is out of scope."""

    plain: Head
    tail: Tail
    over: Head
    vectors: Vectors

    def predict(self, text: str, embedding: Sequence[float]) -> Prediction:
        """The best intent."""
        vector = embedded(self.tail, self.vectors.states([text]))[0]
        logs = self.over.scores(text, vector.tolist())[1]
        best, scope = int(logs.argmax()), self.plain.scope
        foreign = scope.score(float(log_total(self.plain.scores(text, embedding)[0])))
        first = Ranked(self.plain.labels[best], float(np.exp(logs[best])))
        return Prediction((first,), foreign, foreign > scope.threshold)


def tuned_head(examples: Sequence[Example], vectors: Vectors, seed: int) -> Tuned:
    """Calibrated on examples that a layer was not tuned to, each scored without itself."""
    plain = train(examples, vectors, embedder="study", effort="first", seed=seed)
    own = different(examples)
    texts = [example.text for example in (*own, *explained(plain.labels, {}))]
    intents = np.array(
        [plain.labels.index(example.intent) for example in (*own, *explained(plain.labels, {}))], np.int64
    )
    words = grams.matrix(texts, plain.frequencies)
    generator = np.random.default_rng(seed)
    generator.permutation(len(plain.labels))  # the head has drawn it
    held = _held(intents[: len(own)], generator)
    rest = np.setdiff1d(np.arange(len(intents)), held)
    layer_seed = int(generator.integers(1 << 31))
    base, given = last_layer(vectors.model), vectors.states(texts)

    trial = tune(base, [given[i] for i in rest], intents[rest], seed=layer_seed)
    alone = _fitted(plain, words, intents, embedded(trial, given))[0].without_each()[held]
    first, second = weighed([alone, floored_log(alone)], intents[held])[0]
    tail = tune(base, given, intents, seed=layer_seed)
    tuned = embedded(tail, given)
    found, kernel = _fitted(plain, words, intents, tuned)
    mixture = Mixture(max(first, LEAST), second, 0.0)
    return Tuned(
        plain, tail, replace(plain, kernel=kernel, landmarks=tuned, weights=found.weights, mixture=mixture), vectors
    )


def _fitted(plain: Head, words: Sparse, intents: Index, vectors: Floats) -> tuple[Fit, Kernel]:
    """The kernel's width keeps its measure: tuned vectors lie further apart."""
    vectors[:] = vectors.astype(np.float16)
    kernel = replace(plain.kernel, width=plain.kernel.width * _spread(plain.landmarks) / _spread(vectors))
    return fit(kernel, vectors, words, one_hot(intents, len(plain.labels)), np.arange(len(vectors))), kernel


def _spread(vectors: Floats) -> float:
    return float((vectors @ vectors.T).std())


def _held(intents: Index, generator: np.random.Generator) -> Index:
    """One in HELD of each intent's examples, ascending; those that are over go round the intents."""
    taken = []
    for number, intent in enumerate(np.unique(intents)):
        own = generator.permutation(np.flatnonzero(intents == intent))
        taken.append(own[number % HELD :: HELD])
    return np.sort(np.concatenate(taken))
