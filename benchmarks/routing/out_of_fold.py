"""Baselines beside the scorer, both on folds that they have not seen, all folds pooled.

Prompts that occur twice share a fold. The scorer is put together for each fold as it is for the package: parts trained
on what the other folds hold of MMLU and of GSM8K, mixed by a gate. All methods are ranked by the gap that they expect:
a probability is calibrated by a line for each fold, whose offset would tell how the fold that it has not seen differs.
The calibration error is that of such probabilities.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.routing.data import Examples
from benchmarks.routing.measure import Quality, calibration_error, quality
from benchmarks.routing.training import calibration, folds, gate_between, uncalibrated
from deployments.complexity import ComplexityScorer
from deployments.complexity_parts import Part

FOLDS = 5
SETTINGS = {
    "MMLU at random": ("mmlu", "prompts"),
    "MMLU by subject": ("mmlu", "subjects"),
    "GSM8K": ("gsm8k", "prompts"),
}
LENGTH, BOOSTING, OURS, TEXT_ALONE = (
    "length",
    "embedding + 7 features, boosting",
    "complexity scorer",
    "without embedding",
)
SAID = "probability"
PIECES = ("its networks alone", "its words alone", "its trees alone")


@dataclass(frozen=True, slots=True)
class Row:
    """Of one method in one setting; `error`: calibration error, for probabilities."""

    setting: str
    method: str
    quality: Quality
    error: float | None = None


@dataclass(frozen=True, slots=True)
class Folded:
    """One part a fold, that has not seen its fold, and the gaps that they say, (n,)."""

    fold: NDArray[np.int64]
    parts: list[Part]
    gaps: NDArray[np.float32]


def scores(sources: Mapping[str, Examples], seed: int, boosting: bool) -> Iterator[tuple[str, dict[str, NDArray]]]:
    """For each setting: the out-of-fold scores (n,) of each method."""
    folded = {setting: _folded(sources[source], groups, seed) for setting, (source, groups) in SETTINGS.items()}
    for setting, (source, _) in SETTINGS.items():
        examples, mine = sources[source], folded[setting]
        other = folded["MMLU at random" if source == "gsm8k" else "GSM8K"]
        found = {LENGTH: np.array([len(text) for text in examples.texts], float)}
        if boosting:
            found[BOOSTING] = _boosted(examples, mine.fold)
        found |= _ours(sources, source, mine, other)
        yield setting, found


def rows(setting: str, found: Mapping[str, NDArray], examples: Examples) -> list[Row]:
    """What the scores are worth."""
    wanted = (examples.strong > examples.cheap).astype(float)
    return [
        Row(
            setting,
            method,
            quality(values, examples.cheap, examples.strong),
            calibration_error(found[SAID], wanted) if method == OURS else None,
        )
        for method, values in found.items()
        if method != SAID
    ]


def _folded(examples: Examples, groups: str, seed: int) -> Folded:
    fold = folds(getattr(examples, groups), seed, FOLDS)
    parts, gaps = [], np.empty(len(examples), np.float32)
    for number in range(FOLDS):
        part = uncalibrated(examples.at(np.flatnonzero(fold != number)), seed)
        unseen = examples.at(np.flatnonzero(fold == number))
        gaps[fold == number] = part.gaps(unseen.features, unseen.embeddings)
        parts.append(part)
    return Folded(fold, parts, gaps)


def _ours(sources: Mapping[str, Examples], source: str, mine: Folded, other: Folded) -> dict[str, NDArray]:
    examples = sources[source]
    [elsewhere] = [name for name in sources if name != source]
    found = {name: np.empty(len(examples), np.float32) for name in (OURS, SAID, TEXT_ALONE, *PIECES)}
    for number in range(FOLDS):
        seen = examples.at(np.flatnonzero(mine.fold != number))
        seen_elsewhere = sources[elsewhere].at(np.flatnonzero(other.fold != number))
        parts = {
            source: _calibrated(mine, number, seen),
            elsewhere: _calibrated(other, number, seen_elsewhere),
        }
        scorer = ComplexityScorer(parts, gate_between([seen, seen_elsewhere]), {})
        here = mine.fold == number
        unseen = examples.at(np.flatnonzero(here))
        found[SAID][here] = scorer.scores(unseen.features, unseen.embeddings)
        for method, embeddings in ((OURS, unseen.embeddings), (TEXT_ALONE, None)):
            gaps = np.stack([part.gaps(unseen.features, embeddings) for part in parts.values()], 1)
            found[method][here] = (scorer.gate.shares(unseen.features.rows, embeddings) * gaps).sum(1)
        pieces = parts[source].estimates(unseen.features, unseen.embeddings)
        for piece, values in zip(PIECES, pieces, strict=True):
            found[piece][here] = values
    return found


def _calibrated(folded: Folded, number: int, seen: Examples) -> Part:
    """The part of this fold, by what was said out of fold about the others."""
    gaps = folded.gaps[folded.fold != number]
    slope, intercept = calibration(gaps, (seen.cheap < seen.strong).astype(np.float32))
    return replace(folded.parts[number], slope=slope, intercept=intercept)


def _boosted(examples: Examples, fold: NDArray[np.int64]) -> NDArray[np.float64]:
    """The usual baseline: gradient boosting over the embedding, and seven plain counts of the text."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    data = np.hstack((np.array([_seven(text) for text in examples.texts], np.float32), examples.embeddings))
    gain, found = examples.strong - examples.cheap, np.empty(len(examples))
    for number in range(FOLDS):
        model = HistGradientBoostingRegressor(learning_rate=0.05, max_iter=150, max_leaf_nodes=8, random_state=0)
        model.fit(data[fold != number], gain[fold != number])
        found[fold == number] = model.predict(data[fold == number])
    return found


def _seven(text: str) -> list[int]:
    """Characters, words, lines, digits, question marks, symbols of arithmetic, sentences."""
    symbols = sum(map(text.count, "+-*/=^<>"))
    return [
        len(text),
        len(text.split()),
        text.count("\n"),
        sum(map(str.isdigit, text)),
        text.count("?"),
        symbols,
        text.count(". "),
    ]
