"""The answer of an OpenAI-compatible `/embeddings`, checked before any of it is used."""

import base64
from typing import Any

import numpy as np
import orjson


def read_answer(raw: bytes, texts: int, dimensions: int | None) -> tuple[list[list[float]], str]:
    """The vectors in the order of the texts, float32 and of unit length, and the name of the model that made them.

    Raises ValueError for whatever is not one finite vector of `dimensions` (any, if None) a text.
    """
    try:
        answer = orjson.loads(raw)
        entries = {entry["index"]: entry["embedding"] for entry in answer["data"]}
        name = answer.get("model")
    except (orjson.JSONDecodeError, TypeError, LookupError, AttributeError):
        raise ValueError("it is no list of embeddings") from None
    if len(answer["data"]) != texts or sorted(map(repr, entries)) != sorted(map(repr, range(texts))):
        raise ValueError(f"{texts} texts, {len(answer['data'])} embeddings")
    vectors = [_vector(entries[index]) for index in range(texts)]
    sizes = {len(vector) for vector in vectors}
    wanted = {dimensions} if dimensions is not None else {len(vectors[0])}
    if sizes != wanted:
        raise ValueError(f"{wanted.pop()} dimensions are expected, {', '.join(map(str, sorted(sizes)))} came")
    matrix = np.stack(vectors)
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not (norms > 0).all():
        raise ValueError("a vector has no direction")
    unit: list[list[float]] = (matrix / norms).astype(np.float32).tolist()
    return unit, name if isinstance(name, str) else ""


def _vector(embedding: Any) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """float64 (dimensions,), from a list of numbers or base64 of little-endian float32."""
    try:
        if isinstance(embedding, str):
            found = np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(np.float64)
        else:
            found = np.array(embedding, np.float64)
    except (ValueError, TypeError):
        raise ValueError("an embedding is neither numbers nor base64") from None
    if found.ndim != 1 or not found.size:
        raise ValueError("an embedding is no vector")
    return found
