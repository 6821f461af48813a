"""Vectors of messages: one backend a file, chosen by URL."""

from storage.vectors.opening import open_vectors

__all__ = ["open_vectors"]
