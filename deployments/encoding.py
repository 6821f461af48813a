"""The embedder as a training uses it: from a thread, in batches, each text once."""

import asyncio
import time
from collections.abc import Callable, Sequence

import numpy as np

from deployments.intent_classifier import Embeds
from deployments.intent_head import Matrix
from deployments.states import States
from domain.embedding import Embedding
from domain.errors import Retryable

BATCH = 64
PATIENCE = 60.0  # seconds that an embedder may be away
PAUSE = 0.5
Passed = tuple[Embedding, States | None]


class Stopped(Exception):
    """Nobody wants the rest of this work."""


class Encoding:
    """An `Encode` over an embedder of the event loop in which this is made; call it from another thread.
    `embedder`: its name and revision. `stated`: `states` will be asked for too.

    `stopped`: asked before every batch; raises `Stopped` where it is. Raises `Retryable` where the embedder stays away.
    """

    def __init__(
        self, embedder: Embeds, name: str, dimensions: int, stopped: Callable[[], bool], *, stated: bool = False
    ) -> None:
        self.embedder = name
        self._stated = stated
        self._embeds, self._dimensions, self._stopped = embedder, dimensions, stopped
        self._loop = asyncio.get_running_loop()
        self._known: dict[str, Matrix] = {}
        self._states: dict[str, States] = {}

    def __call__(self, texts: Sequence[str]) -> Matrix:
        self._learn(texts)
        if not texts:
            return np.zeros((0, self._dimensions), np.float32)
        return np.stack([self._known[text] for text in texts])

    def states(self, texts: Sequence[str]) -> list[States]:
        """What goes into the last layers of the embedder's model, of each text."""
        self._learn(texts)
        return [self._states[text] for text in texts]

    def _learn(self, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for start in range(0, len(new), BATCH):
            some = new[start : start + BATCH]
            for text, (vector, states) in zip(some, self._passed(some), strict=True):
                self._known[text] = np.asarray(vector, np.float32)
                if states is not None:
                    self._states[text] = states

    def _passed(self, texts: Sequence[str]) -> Sequence[Passed]:
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

    async def _ask(self, texts: Sequence[str]) -> Sequence[Passed]:
        if self._stated:
            return await self._embeds.embed_with_states(texts, urgent=False)
        return [(vector, None) for vector in await self._embeds.embed_many(texts)]
