"""The shared set's head: trained once, and kept in a file for every later start."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from deployments.intent_head import Head, load, save, train
from domain.embedding import Embedding

log = logging.getLogger(__name__)


async def trained_once(
    path: Path | None,
    dimensions: int,
    examples: Sequence[tuple[str, str]],
    embed: Callable[[Sequence[str]], Awaitable[Sequence[Embedding]]],
) -> Head:
    """The head of `path`, or one of `examples`, which is then kept there."""
    head = await asyncio.to_thread(_cached, path, dimensions) if path else None
    if head is None:
        texts, intents = zip(*examples, strict=True)
        embeddings = await embed(texts)
        head = await asyncio.to_thread(_trained, embeddings, intents, path)
    return head


def _cached(path: Path, dimensions: int) -> Head | None:
    try:
        return load(path, dimensions)
    except FileNotFoundError:
        return None
    except ValueError as error:
        log.warning("the intent classifier's cache is ignored and written again: %s", error)
        return None


def _trained(embeddings: Sequence[Embedding], intents: Sequence[str], path: Path | None) -> Head:
    head = train(embeddings, intents)
    if path is not None:
        try:
            save(head, path)
        except OSError as error:
            log.warning("the intent classifier's cache cannot be written; it will be trained at each start: %s", error)
    return head
