"""Kernel ridge regression on one-hot intents: a Gaussian process's mean, with its leave-one-out answers for nothing.

Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, chapters 2 and 5; above `EXACT` examples the
kernel is approximated from `LANDMARKS` of them (Nyström; Williams and Seeger 2000).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.understanding.grams import BUCKETS, Sparse

EXACT = 16_000  # takes 4 bytes a pair while it trains: 1 GB
LANDMARKS = 4000
BLOCK = 1000  # rows
JITTER = 1e-3  # keeps single precision's Cholesky of landmarks that lie close together

Floats = NDArray[np.float32]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Kernel:
    """`(1 - words) exp(width (cosine - 1)) + words · tf-idf cosine`, `noise` on the diagonal."""

    width: float = 3.0
    words: float = 0.1
    noise: float = 0.1

    def of(self, cosines: Floats, words: Floats) -> Floats:
        """Elementwise."""
        near = np.exp(np.float32(self.width) * (cosines - np.float32(1)))
        return np.asarray(np.float32(1 - self.words) * near + np.float32(self.words) * words, np.float32)


@dataclass(frozen=True, slots=True)
class Fit:
    """`weights` (landmarks, intents) over the kernel with the examples at `landmarks`.

    `residuals` (examples, intents) and `spread` say what an example's scores were without it: `spread` (examples, …) is
    the matrix M = noise (K + noise)⁻¹ itself if `exact`, otherwise B with M = 1 - B Bᵀ.
    """

    weights: Floats
    landmarks: Index
    targets: Floats
    residuals: Floats
    spread: Floats
    exact: bool

    def without_each(self) -> Floats:
        """(examples, intents): scores of each example by the others."""
        diagonal = self.spread.diagonal() if self.exact else 1 - np.square(self.spread).sum(1)
        return np.asarray(self.targets - self.residuals / np.maximum(diagonal, 1e-4)[:, None], np.float32)

    def without(self, group: Index) -> Floats:
        """(group, intents): scores of the examples at `group` by all that are not in it."""
        if self.exact:
            block = self.spread[np.ix_(group, group)]
        else:
            block = np.eye(len(group), dtype=np.float32) - self.spread[group] @ self.spread[group].T
        left = np.linalg.solve(block.astype(np.float64), self.residuals[group].astype(np.float64))
        return np.asarray(self.targets[group] - left, np.float32)


def fit(
    kernel: Kernel,
    embeddings: Floats,
    words: Sparse,
    targets: Floats,
    landmarks: Index,
    beside: tuple[Kernel, Floats] | None = None,
) -> Fit:
    """`embeddings` (examples, dimensions) of unit length, `targets` (examples, intents) one-hot.

    `landmarks`: those of the examples that predictions compare with; all of them make the answer exact. `beside`:
    another kernel and other vectors of the examples; the mean of both kernels counts.
    """
    grams = _matrix(words)
    near = _between(kernel, embeddings, grams, landmarks)
    if beside is not None:
        near += _between(*beside, grams, landmarks)
        near /= 2
    if len(landmarks) == len(embeddings):
        return _exact(kernel, near, targets)
    return _approximate(kernel, near, targets, landmarks)


def chosen_landmarks(intents: Index, always: Index, generator: np.random.Generator) -> Index:
    """All examples if they are few enough; otherwise `always` and a like share of each intent, ascending."""
    if len(intents) <= EXACT:
        return np.arange(len(intents))
    rest = np.setdiff1d(np.arange(len(intents)), always)
    rest = generator.permutation(rest)
    ranks = np.empty(len(rest))
    for intent in np.unique(intents[rest]):
        own = np.flatnonzero(intents[rest] == intent)
        ranks[own] = (np.arange(len(own)) + 0.5) / len(own)
    kept = rest[np.argsort(ranks, kind="stable")[: max(0, LANDMARKS - len(always))]]
    return np.sort(np.concatenate([always, kept]))


def _exact(kernel: Kernel, gram: Floats, targets: Floats) -> Fit:
    """In the memory of `gram`, of which LAPACK sees the transpose."""
    from scipy.linalg.lapack import spotrf, spotri, spotrs

    noise = np.float32(kernel.noise)
    gram[np.diag_indices(len(gram))] += noise
    root, failed = spotrf(gram.T, lower=1, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError("the kernel of these examples is not positive definite")
    weights = np.ascontiguousarray(spotrs(root, targets, lower=1)[0])
    inverse = spotri(root, lower=1, overwrite_c=1)[0].T
    for start in range(0, len(inverse), BLOCK):  # its upper triangle is filled
        rows = slice(start, start + BLOCK)
        square = inverse[rows, rows]
        square[:] = np.triu(square) + np.triu(square, 1).T
        inverse[start + BLOCK :, rows] = inverse[rows, start + BLOCK :].T
    inverse *= noise
    return Fit(weights, np.arange(len(inverse)), targets, noise * weights, inverse, exact=True)


def _approximate(kernel: Kernel, gram: Floats, targets: Floats, landmarks: Index) -> Fit:
    from scipy.linalg import cholesky, solve_triangular

    among = gram[landmarks] + np.float32(JITTER) * np.eye(len(landmarks), dtype=np.float32)
    root = cholesky(among, lower=True, check_finite=False)
    features = solve_triangular(root, gram.T, lower=True, check_finite=False).T  # features featuresᵀ ≈ K
    inner = features.T @ features
    inner[np.diag_indices(len(inner))] += np.float32(kernel.noise)
    spread = solve_triangular(cholesky(inner, lower=True), features.T, lower=True, check_finite=False).T
    fitted = spread @ (spread.T @ targets)
    over_features = solve_triangular(cholesky(inner, lower=True), spread.T @ targets, lower=True, trans=1)
    weights = solve_triangular(root, over_features, lower=True, trans=1)
    return Fit(weights.astype(np.float32), landmarks, targets, targets - fitted, spread, exact=False)


def _between(kernel: Kernel, embeddings: Floats, grams: Any, landmarks: Index) -> Floats:
    """(examples, landmarks), a block of rows at a time: few copies of what may be large."""
    found = np.empty((len(embeddings), len(landmarks)), np.float32)
    others, other_grams = embeddings[landmarks].T, grams[landmarks].T.tocsc()
    for start in range(0, len(embeddings), BLOCK):
        rows = slice(start, start + BLOCK)
        found[rows] = kernel.of(embeddings[rows] @ others, (grams[rows] @ other_grams).toarray())
    return found


def _matrix(rows: Sparse) -> Any:
    from scipy.sparse import csr_matrix

    shape = (len(rows.starts) - 1, BUCKETS)
    return csr_matrix((rows.values, rows.buckets.astype(np.int32), rows.starts), shape=shape)


def one_hot(intents: Sequence[int] | Index, count: int) -> Floats:
    """float32 (examples, count)."""
    return np.asarray(np.eye(count)[np.asarray(intents)], np.float32)
