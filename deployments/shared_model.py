"""The head of the shared set as `domain.understanding.IntentModel`: one of its intents is out of scope."""

from collections.abc import Sequence
from dataclasses import dataclass

from deployments.understanding import Head
from domain.clarifying import OTHER
from domain.understanding import Prediction

THRESHOLD = 0.3
"""Below it a message is out of scope, see `IntentClassifier`."""
RANKED = 5


@dataclass(frozen=True, slots=True)
class SharedModel:
    """Out of scope is what `head` takes for OTHER, and what resembles no named intent by `threshold`. The head's own
    scope counts not: it was learned with OTHER inside."""

    head: Head
    threshold: float = THRESHOLD

    @property
    def labels(self) -> tuple[str, ...]:
        return self.head.labels

    @property
    def embedder(self) -> str:
        return self.head.embedder

    def predict(self, text: str, embedding: Sequence[float]) -> Prediction:
        """Raises `ValueError` for an embedding of another length."""
        ranked = self.head.predict(text, embedding).ranked
        named = next(one.confidence for one in ranked if one.name != OTHER)
        return Prediction(ranked[:RANKED], 1 - named, ranked[0].name == OTHER or named < self.threshold)
