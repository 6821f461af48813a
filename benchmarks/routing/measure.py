"""How well scores choose between two models: the gap recovered over the share of strong calls (arXiv:2406.18665)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 10
Scores = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Quality:
    """`apgr`: mean performance gap recovered; `share`: of strong calls, for 80 % of the gap."""

    apgr: float
    share: float


def recovered(scores: Scores, cheap: Scores, strong: Scores) -> NDArray[np.float64]:
    """(n + 1,): the part of the gap recovered when 0, 1, … n prompts, the highest scores first, go to the strong model.

    Prompts of equal score stay in their order.
    """
    gains = (strong - cheap)[np.argsort(-scores, kind="stable")].astype(np.float64)
    return np.concatenate(([0.0], np.cumsum(gains))) / gains.sum()


def quality(scores: Scores, cheap: Scores, strong: Scores) -> Quality:
    """APGR as RouteLLM's evaluation computes it: the area by trapezoids between eleven thresholds, ten equal bins.

    Chance gives 0.5. An oracle exceeds 1: it does not call the strong model where only the cheap one is right.
    """
    curve = recovered(scores, cheap, strong)
    at = np.round(np.linspace(0, 1, BINS + 1) * len(scores)).astype(int)
    apgr = float(((curve[at][1:] + curve[at][:-1]) / 2).mean())
    return Quality(apgr, float(np.argmax(curve >= 0.8) / len(scores)))


def calibration_error(probabilities: Scores, outcomes: Scores, bins: int = 10) -> float:
    """Mean distance between said and seen share, over bins of equal size."""
    order = np.array_split(np.argsort(probabilities, kind="stable"), bins)
    return float(
        sum(len(one) * abs(probabilities[one].mean() - outcomes[one].mean()) for one in order) / len(probabilities)
    )
