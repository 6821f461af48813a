"""The shared set's head: trained once, and kept in a file for every later start."""

import asyncio
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from deployments.intent_head import Matrix
from deployments.understanding import Head, train
from deployments.understanding.examples import explained
from domain.embedding import Embedding
from domain.understanding import Example

log = logging.getLogger(__name__)


async def trained_once(
    path: Path | None,
    embedder: str,
    dimensions: int,
    examples: Sequence[tuple[str, str]],
    embed: Callable[[Sequence[str]], Awaitable[Sequence[Embedding]]],
) -> Head:
    """The head of `path`, or one of `examples`, which is then kept there. `embedder`: name and revision of what embeds.

    Raises `InvalidExamples`; what `embed` raises is passed on.
    """
    head = await asyncio.to_thread(_cached, path, embedder, dimensions) if path else None
    if head is None:
        known = [Example(text, intent) for text, intent in examples]
        texts = [one.text for one in (*known, *explained(sorted({one.intent for one in known}), {}))]
        vectors = dict(zip(texts, await embed(texts), strict=True))
        head = await asyncio.to_thread(_trained, known, vectors, embedder, path)
    return head


def load(path: Path, embedder: str, dimensions: int) -> Head:
    """Raises `FileNotFoundError`, or `ValueError` for a file that holds no head for this embedder."""
    try:
        head = Head.from_bytes(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not readable: {error}") from error
    if head.embedder != embedder or head.landmarks.shape[1] != dimensions:
        raise ValueError(f"{path} holds a head of another embedder")
    return head


def save(head: Head, path: Path) -> None:
    """Write the head so that a reader sees all of it or nothing. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(head.to_bytes())
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _cached(path: Path, embedder: str, dimensions: int) -> Head | None:
    try:
        return load(path, embedder, dimensions)
    except FileNotFoundError:
        return None
    except ValueError as error:
        log.warning("the intent classifier's cache is ignored and written again: %s", error)
        return None


def _trained(examples: Sequence[Example], vectors: Mapping[str, Embedding], embedder: str, path: Path | None) -> Head:
    def encode(texts: Sequence[str]) -> Matrix:
        return np.asarray([vectors[text] for text in texts], np.float32)

    head = train(examples, encode, embedder=embedder, effort="first")
    if path is not None:
        try:
            save(head, path)
        except OSError as error:
            log.warning("the intent classifier's cache cannot be written; it will be trained at each start: %s", error)
    return head
