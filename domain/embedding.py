"""A text as a vector."""

from collections.abc import Sequence

Embedding = Sequence[float]
"""Unit length, one float a dimension."""
