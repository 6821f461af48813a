"""A score's rank among reference prompts: what the choice of models compares with its dial.

Probabilities of failure lie close together (most of them between 0.13 and 0.31); ranks are spread evenly, so that a
dial of 0.3 sends about three in ten messages like the reference prompts to the strong model.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deployments.complexity import PACKAGED, Scorer, packaged

RANKS = PACKAGED.with_name("ranks.json")
POINTS = 101


@dataclass(frozen=True, slots=True)
class Ranked:
    """`scorer`'s scores as ranks in [0, 1]. `quantiles`: scores of the reference prompts at even ranks, ascending."""

    scorer: Scorer
    quantiles: Sequence[float]

    def score(self, text: str, embedding: Sequence[float] | None) -> float:
        """The share of reference prompts whose score is lower."""
        return float(
            np.interp(self.scorer.score(text, embedding), self.quantiles, np.linspace(0, 1, len(self.quantiles)))
        )


def quantiles(scores: Sequence[float]) -> list[float]:
    """`POINTS` scores at even ranks. Raises ValueError without scores."""
    if not len(scores):
        raise ValueError("ranks need scores")
    return [round(float(value), 6) for value in np.quantile(np.asarray(scores), np.linspace(0, 1, POINTS))]


def packaged_ranks() -> Ranked:
    """The packaged scorer with the ranks of its training prompts. Raises OSError or ValueError."""
    return Ranked(packaged(), checked(json.loads(RANKS.read_text())["quantiles"]))


def checked(values: Sequence[float]) -> list[float]:
    """Raises ValueError for what are no quantiles."""
    found = [float(value) for value in values]
    if len(found) < 2 or found != sorted(found):
        raise ValueError("quantiles are two or more numbers in ascending order")
    return found
