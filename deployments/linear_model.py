"""A logistic regression over embeddings as `domain.understanding.IntentModel`."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deployments.intent_head import Head
from domain.clarifying import OTHER
from domain.understanding import Prediction, Ranked

THRESHOLD = 0.3
"""Below it a message is out of scope; chosen on intents/validation.yaml, see `IntentClassifier`."""
RANKED = 5
FORMAT = 1


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

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        told = json.dumps({"format": FORMAT, "embedder": self.embedder, "labels": self.head.labels})
        np.savez_compressed(buffer, told=np.array(told), weights=self.head.weights, bias=self.head.bias)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, artefact: bytes) -> "LinearModel":
        """Raises `ValueError` for what is no head of this code."""
        try:
            with np.load(io.BytesIO(artefact), allow_pickle=False) as file:
                told, weights, bias = json.loads(str(file["told"])), file["weights"], file["bias"]
            labels = tuple(map(str, told["labels"]))
            fits = told["format"] == FORMAT and weights.shape[0] == len(labels) == bias.shape[0] >= 2
        except Exception as error:  # zipfile, numpy and json each have errors of their own for broken data
            raise ValueError(f"the head cannot be read: {error}") from error
        if not fits or not (np.isfinite(weights).all() and np.isfinite(bias).all()):
            raise ValueError("the head is of another kind, or broken")
        return cls(Head(labels, weights.astype(np.float32), bias.astype(np.float32)), told["embedder"])
