"""Tenants' own complexity scorers, as the classifier's replicas hold them."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from deployments.complexity import Scorer
from deployments.complexity_training import from_bytes
from domain.embedding import Embedding
from domain.errors import BrainError

log = logging.getLogger(__name__)

FRESH = 15.0  # seconds until a tenant's version is asked for again
MOST = 1000  # tenants held at once

Load = Callable[[str], Awaitable[tuple[int, str, bytes] | None]]


@dataclass(slots=True)
class _Held:
    read_at: float
    version: int = 0
    scorer: Scorer | None = None


class TenantScorers:
    """`load` gives version, embedder and artefact of a tenant's active scorer. `embedder` is the one that runs here:
    a scorer that was trained with another one is not used.

    What cannot be read leaves the last one known, or none: a scorer that is away never costs a turn.
    """

    def __init__(self, load: Load, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._load, self._monotonic = load, monotonic
        self._held: OrderedDict[str, _Held] = OrderedDict()

    async def score(self, tenant: str, text: str, embedding: Embedding, embedder: str) -> float | None:
        """The tenant's own score of a text; None where it has no scorer of its own."""
        held = await self._of(tenant, embedder)
        return None if held.scorer is None else held.scorer.score(text, embedding)

    async def _of(self, tenant: str, embedder: str) -> _Held:
        now = self._monotonic()
        held = self._held.get(tenant)
        if held is None:
            held = self._held[tenant] = _Held(-FRESH * 2 + now)
            if len(self._held) > MOST:
                self._held.popitem(last=False)
        self._held.move_to_end(tenant)
        if now - held.read_at < FRESH:
            return held
        held.read_at = now  # callers that come meanwhile take what is there
        try:
            found = await self._load(tenant)
            await self._take(held, found, embedder)
        except (BrainError, ValueError) as error:
            log.warning("the complexity scorer of %s is not used: %s", tenant, error)
        return held

    async def _take(self, held: _Held, found: tuple[int, str, bytes] | None, embedder: str) -> None:
        if found is None:
            held.version, held.scorer = 0, None
            return
        version, trained_with, artefact = found
        if version == held.version:
            return
        held.version, held.scorer = version, None
        if trained_with != embedder:
            raise ValueError(f"it was trained with the embedder {trained_with}, and {embedder} runs here")
        held.scorer = await asyncio.to_thread(from_bytes, artefact)
