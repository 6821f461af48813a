"""The embedder as a training uses it: from a thread, in batches, each text once."""

import asyncio
import time
from collections.abc import Callable, Sequence

import numpy as np

from deployments.intent_classifier import Embeds
from deployments.intent_head import Matrix
from domain.embedding import Embedding
from domain.errors import Retryable

BATCH = 64
PATIENCE = 60.0  # seconds that an embedder may be away
PAUSE = 0.5


class Stopped(Exception):
    """Nobody wants the rest of this work."""


class Encoding:
    """An `Encode` over an embedder of the event loop in which this is made; call it from another thread.
    `embedder`: its name and revision.

    `stopped`: asked before every batch; raises `Stopped` where it is. Raises `Retryable` where the embedder stays away.
    """

    def __init__(self, embedder: Embeds, name: str, dimensions: int, stopped: Callable[[], bool]) -> None:
        self.embedder = name
        self._embeds, self._dimensions, self._stopped = embedder, dimensions, stopped
        self._loop = asyncio.get_running_loop()
        self._known: dict[str, Matrix] = {}

    def __call__(self, texts: Sequence[str]) -> Matrix:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for start in range(0, len(new), BATCH):
            some = new[start : start + BATCH]
            for text, vector in zip(some, self._embedded(some), strict=True):
                self._known[text] = np.asarray(vector, np.float32)
        if not texts:
            return np.zeros((0, self._dimensions), np.float32)
        return np.stack([self._known[text] for text in texts])

    def _embedded(self, texts: Sequence[str]) -> Sequence[Embedding]:
        deadline = time.monotonic() + PATIENCE
        while True:
            if self._stopped():
                raise Stopped
            try:
                return asyncio.run_coroutine_threadsafe(self._ask(texts), self._loop).result()
            except Retryable:
                if time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE)

    async def _ask(self, texts: Sequence[str]) -> Sequence[Embedding]:
        return await self._embeds.embed_many(texts)
