"""Tenants' own complexity scorers, as the classifier's replicas hold them."""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from deployments.complexity import Scorer
from deployments.complexity_ranks import Ranked, checked
from deployments.complexity_training import from_bytes
from domain.embedding import Embedding
from domain.errors import BrainError

log = logging.getLogger(__name__)

FRESH = 15.0  # seconds until a tenant's scorer is asked for again
MOST = 1000  # tenants held at once


class Kept(Protocol):
    """A scorer as storage keeps it."""

    @property
    def embedder(self) -> str: ...
    @property
    def artefact(self) -> bytes: ...
    @property
    def quantiles(self) -> Sequence[float]: ...


Load = Callable[[str], Awaitable[Kept | None]]


@dataclass(slots=True)
class _Held:
    read_at: float
    content: bytes = b""
    scorer: Scorer | None = None


class TenantScorers:
    """`load` gives a tenant's active scorer. One that was trained with another embedder than runs here is not used.

    What cannot be read leaves the last one known, or none: a scorer that is away never costs a turn.
    """

    def __init__(self, load: Load, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._load, self._monotonic = load, monotonic
        self._held: OrderedDict[str, _Held] = OrderedDict()

    async def score(self, tenant: str, text: str, embedding: Embedding, embedder: str) -> float | None:
        """The text's rank by the tenant's own scorer; None where it has none."""
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

    async def _take(self, held: _Held, found: Kept | None, embedder: str) -> None:
        if found is None:
            held.content, held.scorer = b"", None
            return
        told = repr((embedder, found.embedder, *found.quantiles))
        content = hashlib.sha256(told.encode() + found.artefact).digest()
        if content == held.content:  # a version may come again with another artefact: the database was put back
            return
        try:
            if found.embedder != embedder:
                raise ValueError(f"it was trained with the embedder {found.embedder}, and {embedder} runs here")
            scorer: Scorer | None = Ranked(
                await asyncio.to_thread(from_bytes, found.artefact), checked(found.quantiles)
            )
        except ValueError:
            held.content, held.scorer = content, None
            raise
        held.content, held.scorer = content, scorer
