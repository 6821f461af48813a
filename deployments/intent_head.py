"""The head over sentence embeddings that names an intent: multinomial logistic regression, applied with numpy alone."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
GENERAL = Path(__file__).parent / "intents" / "general.yaml"
REGULARISATION = 20.0  # scikit-learn's C; log loss on intents/validation.yaml: 0.50 at 10, 0.45 at 20, 0.43 at 30


@dataclass(frozen=True, slots=True)
class Head:
    """`weights` (intents, dimensions) and `bias` (intents,), float32; `labels` names the rows."""

    labels: tuple[str, ...]
    weights: Matrix
    bias: Matrix

    def probabilities(self, embedding: Sequence[float]) -> Matrix:
        """Softmax over the intents: (intents,), sums to one."""
        logits = self.weights @ np.asarray(embedding, np.float32) + self.bias
        powers = np.exp(logits - logits.max())
        return np.asarray(powers / powers.sum(), np.float32)


def read_examples(path: Path = GENERAL) -> list[tuple[str, str]]:
    """(text, intent) of every example in a YAML file `intent: [text, …]`."""
    intents: dict[str, list[str]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [(text, intent) for intent, texts in intents.items() for text in texts]


def train(embeddings: Sequence[Sequence[float]], intents: Sequence[str]) -> Head:
    """Fit the head: `embeddings` (examples, dimensions), one intent each, three intents or more. Takes under a second.

    Intents weigh the same however many examples they have.
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=1000)
    model.fit(np.asarray(embeddings, np.float32), list(intents))
    return Head(
        tuple(str(label) for label in model.classes_),
        np.asarray(model.coef_, np.float32),
        np.asarray(model.intercept_, np.float32),
    )


def fingerprint(model: str, examples: Sequence[tuple[str, str]]) -> str:
    """What the head depends on: the embedding model, the examples, the trainer."""
    parts = (model, sorted(examples), version("scikit-learn"), REGULARISATION)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def save(head: Head, path: Path) -> None:
    """Write the head so that a reader sees all of it or nothing. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, labels=np.array(head.labels), weights=head.weights, bias=head.bias)
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def load(path: Path, dimensions: int) -> Head:
    """Read a saved head. Raises `FileNotFoundError`, or `ValueError` for a file that is not one for this model."""
    try:
        with np.load(path, allow_pickle=False) as file:
            labels, weights, bias = file["labels"], file["weights"], file["bias"]
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, numpy and the disk each have errors of their own for a broken file
        raise ValueError(f"{path} is not readable: {error}") from error
    if weights.shape != (len(labels), dimensions) or bias.shape != (len(labels),) or len(labels) < 2:
        raise ValueError(f"{path} holds a head of another shape")
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise ValueError(f"{path} holds numbers that are not finite")
    return Head(tuple(map(str, labels)), weights.astype(np.float32), bias.astype(np.float32))
