"""A logistic regression over embeddings as `domain.understanding.IntentModel`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deployments.intent_head import Head
from domain.clarifying import OTHER
from domain.understanding import Prediction, Ranked

THRESHOLD = 0.3
"""Below it a message is out of scope; chosen on intents/validation.yaml, see `IntentClassifier`."""
RANKED = 5


@dataclass(frozen=True, slots=True)
class LinearModel:
    """`head`'s softmax, whose largest probability of a named intent says whether it is one."""

    head: Head
    embedder: str = ""
    threshold: float = THRESHOLD

    @property
    def labels(self) -> tuple[str, ...]:
        return self.head.labels

    def predict(self, text: str, embedding: Sequence[float]) -> Prediction:
        probabilities = self.head.probabilities(embedding)
        order = np.argsort(-probabilities)
        ranked = [Ranked(self.head.labels[i], float(probabilities[i])) for i in order[: RANKED + 1]]
        named = next(one.confidence for one in ranked if one.name != OTHER)
        out = ranked[0].name == OTHER or named < self.threshold
        return Prediction(tuple(ranked[:RANKED]), 1 - named, out)
