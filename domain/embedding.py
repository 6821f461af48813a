"""A text as a vector."""

from collections.abc import Sequence
from dataclasses import dataclass

Embedding = Sequence[float]
"""Unit length, one float a dimension."""


@dataclass(frozen=True, slots=True)
class EmbedderInfo:
    """Which model embeds. `revision` changes with its vectors; `max_tokens`: what it reads of a text."""

    name: str
    dimensions: int
    max_tokens: int
    revision: str
