"""Words and pairs of words as sparse unit vectors: tf-idf over hashed grams, so that no vocabulary is kept.

Hashing: Weinberger et al. 2009, arXiv:0902.2206.
"""

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log

import numpy as np
from numpy.typing import NDArray

BUCKETS = 1 << 15
READ = 4000  # characters of a text; what stands further back changes no intent
_WORD = re.compile(r"[^\W\d_]+|\d+")

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sparse:
    """Rows of a sparse matrix (rows, BUCKETS): row i holds `values[starts[i]:starts[i + 1]]` at `buckets[…]`."""

    starts: NDArray[np.int32]
    buckets: NDArray[np.uint16]
    values: Floats


def counted(text: str) -> Counter[int]:
    """How often each bucket's grams occur. Every number is the same word."""
    words = ["0" if word.isdecimal() else word for word in _WORD.findall(text[:READ].casefold())]
    pairs = [f"{left} {right}" for left, right in pairwise(words)]
    return Counter(zlib.crc32(gram.encode("utf-8", "replace")) % BUCKETS for gram in words + pairs)


def inverse_frequencies(texts: Sequence[str]) -> Floats:
    """(BUCKETS,) smoothed, at least one; half precision is enough, and is what an artefact holds."""
    found = Counter(bucket for text in texts for bucket in counted(text))
    frequencies = np.zeros(BUCKETS)
    frequencies[list(found)] = list(found.values())
    return (np.log((1 + len(texts)) / (1 + frequencies)) + 1).astype(np.float16).astype(np.float32)


def vector(text: str, weights: Floats) -> tuple[NDArray[np.uint16], Floats]:
    """Buckets and values of one text, unit length; `weights`: (BUCKETS,) of `inverse_frequencies`."""
    counts = counted(text)
    buckets = np.fromiter(counts.keys(), np.uint16, len(counts))
    values = np.fromiter((1 + log(count) for count in counts.values()), np.float32, len(counts)) * weights[buckets]
    return buckets, values / max(float(np.linalg.norm(values)), 1e-9)


def matrix(texts: Sequence[str], weights: Floats) -> Sparse:
    """A row a text, in half precision."""
    rows = [vector(text, weights) for text in texts]
    starts = np.cumsum([0] + [len(buckets) for buckets, _ in rows]).astype(np.int32)
    values = np.concatenate([values for _, values in rows]) if rows else np.zeros(0, np.float32)
    buckets = np.concatenate([buckets for buckets, _ in rows]) if rows else np.zeros(0, np.uint16)
    return Sparse(starts, buckets, values.astype(np.float16).astype(np.float32))


class Postings:
    """A matrix by bucket, for its product with one text's vector: a few microseconds a gram."""

    def __init__(self, rows: Sparse) -> None:
        order = np.argsort(rows.buckets, kind="stable")
        numbers = np.repeat(np.arange(len(rows.starts) - 1), np.diff(rows.starts))
        self._rows, self._values = numbers[order], rows.values[order]
        self._starts = np.searchsorted(rows.buckets[order], np.arange(BUCKETS + 1))
        self._count = len(rows.starts) - 1

    def product(self, buckets: NDArray[np.uint16], values: Floats) -> Floats:
        """(rows,)"""
        found = np.zeros(self._count, np.float32)
        for bucket, value in zip(buckets.tolist(), values.tolist(), strict=True):
            start, end = self._starts[bucket], self._starts[bucket + 1]
            found[self._rows[start:end]] += value * self._values[start:end]
        return found
