"""The pieces of a complexity scorer: inputs, small networks, hashed words, trees, the gate. Numpy alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deployments.complexity_features import TextFeatures

Vector = NDArray[np.float32]
Matrix = NDArray[np.float32]

CLIP = 4.0  # standard deviations: what is stranger counts as that strange
MIXTURE = np.array([1, 1, 4], np.float32) / 6  # of networks, words and trees, which vary half as much as networks
EMBEDDING_SCALE = 5.0  # makes an embedding's 384 dimensions together as wide as about 25 features


@dataclass(frozen=True, slots=True)
class Trees:
    """Complete binary trees of one depth: a value above a node's threshold goes right.

    `columns` uint8 and `thresholds` float32 (trees, 2^depth - 1), the root first; `leaves` float32 (trees, 2^depth).
    """

    columns: NDArray[np.uint8]
    thresholds: Matrix
    leaves: Matrix

    def predict(self, rows: Matrix) -> Vector:
        """The mean over the trees: `rows` (n, features) → (n,)."""
        count, inner = self.columns.shape
        columns, thresholds = self.columns.ravel(), self.thresholds.ravel()
        roots = np.arange(count, dtype=np.int64) * inner
        lines = np.arange(len(rows), dtype=np.int64)[:, None]
        at = np.zeros((len(rows), count), np.int64)
        for _ in range(inner.bit_length()):
            node = at + roots
            at = 2 * at + 1 + (rows[lines, columns[node]] > thresholds[node])
        return np.asarray(self.leaves[np.arange(count), at - inner].mean(1), np.float32)


@dataclass(frozen=True, slots=True)
class Standard:
    """What makes features and embedding comparable: `mean`, `scale` (features,), `centre` (dimensions,)."""

    mean: Vector
    scale: Vector
    centre: Vector

    def __call__(self, rows: Matrix, embeddings: Matrix | None) -> Matrix:
        """float32 (n, features + dimensions). No embeddings: as if each were the mean one."""
        found = np.zeros((len(rows), len(self.mean) + len(self.centre)), np.float32)
        found[:, : len(self.mean)] = ((rows - self.mean) / self.scale).clip(-CLIP, CLIP)
        if embeddings is not None:
            found[:, len(self.mean) :] = EMBEDDING_SCALE * (embeddings - self.centre)
        return found


@dataclass(frozen=True, slots=True)
class Network:
    """Small networks side by side: a hidden layer with SiLU; two logits, that the cheap and the strong one are right.

    `hidden` (networks, features + dimensions, units), `hidden_bias` (networks, 1, units), `out` (networks, units, 2),
    `out_bias` (networks, 1, 2).
    """

    hidden: Matrix
    hidden_bias: Matrix
    out: Matrix
    out_bias: Matrix

    def predict(self, inputs: Matrix) -> Vector:
        """The strong model's probability to be right less the cheap one's, the mean over the networks: (n,)."""
        units = inputs @ self.hidden + self.hidden_bias
        right = sigmoid((units * sigmoid(units)) @ self.out + self.out_bias).mean(0)
        return np.asarray(right[:, 1] - right[:, 0], np.float32)


@dataclass(frozen=True, slots=True)
class Part:
    """What was learned from one source: three estimates of the gap, and how their mixture becomes a probability.

    `words` (BUCKETS,): weights of hashed words; the gap is the strong model's correctness less the cheap one's.
    """

    standard: Standard
    network: Network
    words: Vector
    bias: float
    trees: Trees
    slope: float
    intercept: float

    def gaps(self, texts: TextFeatures, embeddings: Matrix | None) -> Vector:
        """The expected gain in correctness by the strong model, (n,)."""
        return np.asarray(MIXTURE @ self.estimates(texts, embeddings), np.float32)

    def estimates(self, texts: TextFeatures, embeddings: Matrix | None) -> Matrix:
        """(3, n): by the networks, by the words, by the trees."""
        words = np.array([values @ self.words[buckets] for buckets, values in texts.words], np.float32)
        network = self.network.predict(self.standard(texts.rows, embeddings))
        return np.stack([network, words + np.float32(self.bias), self.trees.predict(texts.rows)])

    def probabilities(self, texts: TextFeatures, embeddings: Matrix | None) -> Vector:
        return sigmoid(self.slope * self.gaps(texts, embeddings) + self.intercept)


@dataclass(frozen=True, slots=True)
class Gate:
    """Which part a text is for: a logistic regression, `weights` (parts, features + dimensions), `bias` (parts,)."""

    standard: Standard
    weights: Matrix
    bias: Vector

    def shares(self, rows: Matrix, embeddings: Matrix | None) -> Matrix:
        """(n, parts), each row sums to one."""
        logits = self.standard(rows, embeddings) @ self.weights.T + self.bias
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True), np.float32)


def sigmoid(values: ArrayLike) -> Vector:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -30, 30))), np.float32)
