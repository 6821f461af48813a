"""The shared set of intents: its examples, and what the head over them depends on."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
GENERAL = Path(__file__).parent / "intents" / "general.yaml"
_TRAINER = Path(__file__).parent / "understanding"


def read_examples(path: Path = GENERAL) -> list[tuple[str, str]]:
    """(text, intent) of every example in a YAML file `intent: [text, …]`."""
    intents: dict[str, list[str]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [(text, intent) for intent, texts in intents.items() for text in texts]


def fingerprint(model: str, examples: Sequence[tuple[str, str]]) -> str:
    """What the head depends on: the embedding model, the examples, the trainer's code and libraries."""
    code = [path.read_bytes() for path in sorted(_TRAINER.glob("*.py"))]
    parts = (model, sorted(examples), version("scikit-learn"), version("scipy"), code)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
