"""From scores to probabilities: how much each view counts, and how far a text lies from everything known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
FALSE_ALARMS = 0.04  # of texts that are in scope, the share that the threshold lets be refused
STEEPEST = 200.0
FLOOR = 0.01  # of scores that are near 0 for what an intent is not, and near 1 for what it is


def log_softmax(scores: Floats) -> Floats:
    """Along the last axis."""
    shifted = scores - scores.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)), np.float32)


def floored_log(scores: Floats) -> Floats:
    """Elementwise; with the scores themselves it bends their softmax, and leaves their order as it is."""
    return np.asarray(np.log(np.maximum(scores, np.float32(FLOOR))), np.float32)


def log_total(scores: Floats) -> Floats:
    """log Σ exp along the last axis: the free energy of Liu et al. 2020, arXiv:2010.03759, with its sign turned."""
    most = scores.max(-1)
    return np.asarray(most + np.log(np.exp(scores - most[..., None]).sum(-1)), np.float32)


def weighed(views: Sequence[Floats], intents: NDArray[np.int64]) -> tuple[list[float], float]:
    """A weight ≥ 0 for each view, which together make the most probable softmax; and its mean log loss in nats.

    `views`: (examples, intents) scores of examples that their model has not seen. One view: its inverse temperature
    (Guo et al. 2017, arXiv:1706.04599).
    """
    from scipy.optimize import minimize

    rows = np.arange(len(intents))
    stacked = np.stack(views)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logs = log_softmax(np.tensordot(weights.astype(np.float32), stacked, 1))
        probabilities = np.exp(logs)
        slopes = (stacked * probabilities).sum(2).mean(1) - stacked[:, rows, intents].mean(1)
        return -float(logs[rows, intents].mean()), slopes.astype(np.float64)

    scales = [1 / max(float(view.std()), 1e-6) for view in views]
    found = minimize(
        loss, np.array(scales), jac=True, method="L-BFGS-B", bounds=[(0, STEEPEST * scale) for scale in scales]
    )
    return [float(weight) for weight in found.x], float(found.fun)


@dataclass(frozen=True, slots=True)
class Scope:
    """`score`: a strictly rising function of how little `totals` say; `threshold`: what lies above is out of scope."""

    slope: float
    offset: float
    threshold: float

    def score(self, total: float) -> float:
        """In [0, 1]: how probably a text is foreign, were foreign ones as frequent as others."""
        return float(1 / (1 + np.exp(np.clip(self.slope * total + self.offset, -30, 30))))

    def at(self, total: float) -> "Scope":
        """With the threshold where a text has this total."""
        return Scope(self.slope, self.offset, self.score(total))


def scope(known: Floats, foreign: Floats) -> Scope:
    """From totals of texts in scope and out of it; neither may be what the model was trained on (Platt 1999).

    The threshold comes from `known` alone: FALSE_ALARMS of them lie above it.
    """
    from sklearn.linear_model import LogisticRegression

    totals = np.concatenate([known, foreign]).astype(np.float64)
    middle, spread = float(totals.mean()), max(float(totals.std()), 1e-9)
    truth = np.concatenate([np.ones(len(known)), np.zeros(len(foreign))])
    model = LogisticRegression(class_weight="balanced").fit(((totals - middle) / spread)[:, None], truth)
    slope = max(float(model.coef_[0, 0]), 0.1) / spread  # more of what is known is never more foreign
    found = Scope(slope, float(model.intercept_[0]) - slope * middle, 1.0)
    return found.at(float(np.quantile(known, FALSE_ALARMS)))
