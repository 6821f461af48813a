"""How probable it is that a cheap model fails at a message where a strong one would not: numpy over what is at hand.

For each source that it was trained on, the scorer holds a part: small networks over text features and embedding, a
ridge regression over hashed words, and extremely randomized trees (Geurts et al., 2006) over the features. Each
estimates the gap, the strong model's correctness less the cheap one's; a mixture becomes a probability. A logistic
gate mixes the parts by how like a text is to what each was trained on. Task and measure: RouteLLM (arXiv:2406.18665).
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deployments.complexity_features import BUCKETS, NAMES, TextFeatures, features
from deployments.complexity_parts import Gate, Matrix, Network, Part, Standard, Trees, Vector

PACKAGED = Path(__file__).parent / "complexity_model" / "scorer.npz"
EMBEDDER = "all-MiniLM-L6-v2"  # whose vectors the packaged scorer was trained on
LAYERS = ("hidden", "hidden_bias", "out", "out_bias")
LEAST_SHARE = 0.01  # a part with less is not asked
FORMAT, VERSION = "brain-complexity", 1


class Scorer(Protocol):
    """What the classifier asks."""

    def score(self, text: str, embedding: Sequence[float] | None) -> float: ...


@dataclass(frozen=True, slots=True)
class ComplexityScorer:
    """`parts` by name of their source, in the gate's order; `provenance` tells what they were made from."""

    parts: Mapping[str, Part]
    gate: Gate
    provenance: Mapping[str, Any]

    @property
    def dimensions(self) -> int:
        """Of the embeddings."""
        return len(self.gate.standard.centre)

    def score(self, text: str, embedding: Sequence[float] | None) -> float:
        """The probability, in [0, 1], that a cheap model's answer to `text` would be wrong and a strong one's right.

        `embedding`: (dimensions,), unit length, of the model it was trained with; None: judge by the text alone.
        Raises `ValueError` for an embedding of another width.
        """
        vectors = None if embedding is None else np.asarray(embedding, np.float32)[None]
        if vectors is not None and vectors.shape[1] != self.dimensions:
            raise ValueError(f"an embedding of {self.dimensions} dimensions is needed, not {vectors.shape[1]}")
        texts = features([text])
        shares = self.gate.shares(texts.rows, vectors)[0] if len(self.parts) > 1 else np.ones(1)
        heard = [(share, part) for share, part in zip(shares, self.parts.values(), strict=True) if share > LEAST_SHARE]
        return float(sum(share * part.probabilities(texts, vectors)[0] for share, part in heard))

    def scores(self, texts: TextFeatures, embeddings: Matrix | None) -> Vector:
        """Many at once: `embeddings` (n, dimensions) → (n,)."""
        if embeddings is not None and embeddings.shape[1] != self.dimensions:
            raise ValueError(f"an embedding of {self.dimensions} dimensions is needed, not {embeddings.shape[1]}")
        found = np.stack([part.probabilities(texts, embeddings) for part in self.parts.values()], 1)
        if len(self.parts) > 1:
            found *= self.gate.shares(texts.rows, embeddings)
        return np.asarray(found.sum(1), np.float32)

    def only(self, *names: str) -> "ComplexityScorer":
        """The same without the other parts. Raises `KeyError` for a part that it has not."""
        parts = {name: self.parts[name] for name in names}
        kept = [list(self.parts).index(name) for name in names]
        gate = Gate(self.gate.standard, self.gate.weights[kept], self.gate.bias[kept])
        return ComplexityScorer(parts, gate, self.provenance)


def to_bytes(scorer: ComplexityScorer) -> bytes:
    """A numpy archive, the same bytes for the same scorer. Leaves and weights are kept in 16 bits."""
    arrays: dict[str, Any] = {"gate.bias": scorer.gate.bias, "gate.weights": scorer.gate.weights.astype(np.float16)}
    standards = {"gate": scorer.gate.standard} | {name: part.standard for name, part in scorer.parts.items()}
    for name, standard in standards.items():
        arrays |= {f"{name}.{key}": getattr(standard, key) for key in ("mean", "scale", "centre")}
    for name, part in scorer.parts.items():
        arrays |= {
            f"{name}.words": part.words.astype(np.float16),
            f"{name}.scalars": np.array([part.bias, part.slope, part.intercept], np.float64),
            f"{name}.columns": part.trees.columns,
            f"{name}.thresholds": part.trees.thresholds,
            f"{name}.leaves": part.trees.leaves.astype(np.float16),
        }
        arrays |= {f"{name}.network.{key}": getattr(part.network, key).astype(np.float16) for key in LAYERS}
    return pack(
        FORMAT, VERSION, {"parts": list(scorer.parts), "features": list(NAMES)} | dict(scorer.provenance), arrays
    )


def from_bytes(data: bytes) -> ComplexityScorer:
    """Raises `ValueError` for what is not a scorer of this version and these features."""
    header, arrays = unpack(data, FORMAT, VERSION)
    if header.pop("features", None) != list(NAMES):
        raise ValueError("it was trained on other text features than this version computes: train it again")
    try:
        names = [str(name) for name in header.pop("parts")]
        gate = Gate(_standard(arrays, "gate"), arrays["gate.weights"].astype(np.float32), arrays["gate.bias"])
        scorer = ComplexityScorer({name: _part(arrays, name) for name in names}, gate, header)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"a part is missing or of another kind: {error}") from error
    _check(scorer)
    return scorer


def load(path: Path) -> ComplexityScorer:
    """Read a scorer. Raises `FileNotFoundError`, or `ValueError`, which names the file."""
    try:
        return from_bytes(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} holds no complexity scorer: {error}") from error


@cache
def packaged() -> ComplexityScorer:
    """The scorer that comes with this service: `python -m benchmarks routing train` made it."""
    return load(PACKAGED)


def pack(kind: str, version: int, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> bytes:
    """A numpy archive without pickles, whose `header` is JSON and names its kind and version."""
    text = json.dumps({"format": kind, "version": version} | dict(header), sort_keys=True)
    file = io.BytesIO()
    np.savez_compressed(file, header=np.array(text), **arrays)
    return file.getvalue()


def unpack(data: bytes, kind: str, version: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The header and the arrays. Raises `ValueError` for another kind or version, and for broken data."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        found = header["format"], header["version"]
    except Exception as error:  # zipfile, zlib, numpy and json each have errors of their own for broken data
        raise ValueError(f"it cannot be read: {error}") from error
    if found != (kind, version):
        raise ValueError(f"it is {found[0]} of version {found[1]}, not {kind} of version {version}")
    if not all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f"):
        raise ValueError("it holds numbers that are not finite")
    return header, arrays


def _standard(arrays: Mapping[str, NDArray[Any]], name: str) -> Standard:
    return Standard(*(arrays[f"{name}.{key}"].astype(np.float32) for key in ("mean", "scale", "centre")))


def _part(arrays: Mapping[str, NDArray[Any]], name: str) -> Part:
    bias, slope, intercept = (float(value) for value in arrays[f"{name}.scalars"])
    columns, thresholds, leaves = (arrays[f"{name}.{key}"] for key in ("columns", "thresholds", "leaves"))
    trees = Trees(columns.astype(np.uint8), thresholds.astype(np.float32), leaves.astype(np.float32))
    network = Network(*(arrays[f"{name}.network.{key}"].astype(np.float32) for key in LAYERS))
    words = arrays[f"{name}.words"].astype(np.float32)
    return Part(_standard(arrays, name), network, words, bias, trees, slope, intercept)


def _check(scorer: ComplexityScorer) -> None:
    """Raises `ValueError` where the arrays do not fit together."""
    wide, fits = len(NAMES) + scorer.dimensions, bool(scorer.parts)
    for standard in (scorer.gate.standard, *(part.standard for part in scorer.parts.values())):
        fits &= standard.mean.shape == standard.scale.shape == (len(NAMES),) and bool((standard.scale > 0).all())
        fits &= standard.centre.shape == (scorer.dimensions,)
    fits &= scorer.gate.weights.shape == (len(scorer.parts), wide) and scorer.gate.bias.shape == (len(scorer.parts),)
    for part in scorer.parts.values():
        count, inner = part.trees.columns.shape
        networks, _, units = part.network.hidden.shape
        fits &= part.network.hidden.shape[1] == wide and part.network.hidden_bias.shape == (networks, 1, units)
        fits &= part.network.out.shape == (networks, units, 2) and part.network.out_bias.shape == (networks, 1, 2)
        fits &= part.words.shape == (BUCKETS,) and part.trees.thresholds.shape == (count, inner)
        fits &= part.trees.leaves.shape == (count, inner + 1) and not inner & (inner + 1)
        fits &= bool((part.trees.columns < len(NAMES)).all())
    if not fits:
        raise ValueError("its arrays do not fit together")
