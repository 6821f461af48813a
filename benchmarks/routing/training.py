"""How the packaged scorer is trained. The same code trains on each fold of the study."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.routing.data import Examples
from benchmarks.routing.network import train_network
from deployments.complexity import ComplexityScorer
from deployments.complexity_features import BUCKETS, TextFeatures
from deployments.complexity_parts import Gate, Part, Standard, Trees

# Chosen on three quarters of the prompts and subjects, with other folds than those of the study, and then left alone.
RIDGE = 10.0  # of hashed words
TREES, DEPTH, SMALLEST_LEAF, COLUMNS = 100, 8, 5, 0.3
CALIBRATION_FOLDS = 3
NARROWEST = 1e-3  # a feature that varies less is as good as constant


def train(sources: Mapping[str, Examples], seed: int, provenance: Mapping[str, Any] | None = None) -> ComplexityScorer:
    """A scorer with one part a source. The same seed gives the same scorer."""
    parts = {name: _part(examples, seed) for name, examples in sources.items()}
    return ComplexityScorer(parts, gate_between(list(sources.values())), provenance or {})


def folds(groups: NDArray[np.int64], seed: int, count: int) -> NDArray[np.int64]:
    """The fold of each, (n,); those of one group are in the same fold."""
    known, at = np.unique(groups, return_inverse=True)
    of_group = np.empty(len(known), np.int64)
    of_group[np.random.default_rng(seed).permutation(len(known))] = np.arange(len(known)) % count
    return of_group[at]


def _part(examples: Examples, seed: int) -> Part:
    """Whole, with the calibration of parts that have not seen what they judge."""
    fold = folds(examples.prompts, seed, CALIBRATION_FOLDS)
    gaps = np.empty(len(examples), np.float32)
    for number in range(CALIBRATION_FOLDS):
        part = uncalibrated(examples.at(np.flatnonzero(fold != number)), seed)
        unseen = examples.at(np.flatnonzero(fold == number))
        gaps[fold == number] = part.gaps(unseen.features, unseen.embeddings)
    whole = uncalibrated(examples, seed)
    slope, intercept = calibration(gaps, (examples.cheap < examples.strong).astype(np.float32))
    return replace(whole, slope=slope, intercept=intercept)


def uncalibrated(examples: Examples, seed: int) -> Part:
    """A part whose gaps are not yet probabilities."""
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.linear_model import Ridge

    standard, gain = _standard(examples), examples.strong - examples.cheap
    words = Ridge(alpha=RIDGE, solver="lsqr").fit(_sparse(examples.features), gain)
    network = train_network(
        standard(examples.features.rows, examples.embeddings), examples.cheap, examples.strong, seed
    )
    forest = ExtraTreesRegressor(
        TREES,
        max_depth=DEPTH,
        min_samples_leaf=SMALLEST_LEAF,
        max_features=COLUMNS,
        random_state=seed,
        n_jobs=1,
    ).fit(examples.features.rows, gain)
    trees = [_complete(member.tree_) for member in forest.estimators_]
    columns, thresholds, leaves = (np.stack(arrays) for arrays in zip(*trees, strict=True))
    forest_kept = Trees(columns, thresholds, leaves)
    return Part(standard, network, words.coef_.astype(np.float32), float(words.intercept_), forest_kept, 1.0, 0.0)


def _sparse(texts: TextFeatures) -> Any:
    from scipy.sparse import csr_array

    ends = np.cumsum([0, *(len(buckets) for buckets, _ in texts.words)])
    buckets, values = (np.concatenate(arrays) for arrays in zip(*texts.words, strict=True))
    return csr_array((values, buckets, ends), shape=(len(texts.words), BUCKETS))


def _standard(examples: Examples) -> Standard:
    rows = examples.features.rows
    return Standard(rows.mean(0), np.maximum(rows.std(0), NARROWEST), examples.embeddings.mean(0))


def _complete(tree: Any) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """A grown tree as a complete one: below a leaf that came early, everything goes left."""
    inner = 2**DEPTH - 1
    columns, thresholds = np.zeros(inner, np.uint8), np.full(inner, np.finfo(np.float32).max, np.float32)
    source = np.zeros(2 * inner + 1, np.int64)  # which node of the grown tree stands at each place
    for at in range(inner):
        node = source[at]
        if tree.children_left[node] < 0:
            source[2 * at + 1] = source[2 * at + 2] = node
            continue
        columns[at], thresholds[at] = tree.feature[node], tree.threshold[node]
        source[2 * at + 1], source[2 * at + 2] = tree.children_left[node], tree.children_right[node]
    return columns, thresholds, tree.value[source[inner:], 0, 0].astype(np.float32)


def calibration(gaps: NDArray[np.float32], outcomes: NDArray[np.float32]) -> tuple[float, float]:
    """Slope and intercept of a logistic regression (Platt, 1999)."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e6).fit(gaps[:, None], outcomes)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def gate_between(sources: list[Examples]) -> Gate:
    """Which source a text is like."""
    from sklearn.linear_model import LogisticRegression

    rows = np.concatenate([one.features.rows for one in sources])
    embeddings = np.concatenate([one.embeddings for one in sources])
    standard = Standard(rows.mean(0), np.maximum(rows.std(0), NARROWEST), embeddings.mean(0))
    if len(sources) == 1:
        return Gate(standard, np.zeros((1, rows.shape[1] + embeddings.shape[1]), np.float32), np.zeros(1, np.float32))
    labels = np.repeat(np.arange(len(sources)), [len(one) for one in sources])
    model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000)
    model.fit(standard(rows, embeddings), labels)
    weights, bias = model.coef_.astype(np.float32), model.intercept_.astype(np.float32)
    if len(sources) == 2:  # two classes share one row
        weights, bias = np.concatenate((-weights / 2, weights / 2)), np.concatenate((-bias / 2, bias / 2))
    return Gate(standard, weights, bias)
