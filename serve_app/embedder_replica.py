"""The replica of `Embedder`."""

import asyncio
from array import array
from collections.abc import Sequence
from typing import Any

from deployments.handles import answered
from deployments.hosted_embedder import HostedEmbedder
from deployments.recent_embeddings import RecentEmbeddings
from deployments.states import States
from domain.commands import Refused
from domain.embedding import Embedding
from domain.errors import NotTunable
from serve_app.embedders import HeldTo, chosen
from serve_app.process import check_process, prepare
from serve_app.settings import Settings


class EmbedderReplica:
    """An `Embedder`, or a `HostedEmbedder` where the settings name a URL, behind a handle."""

    def __init__(self) -> None:
        settings = Settings()
        prepare(settings.log_level)
        self._embedder, self._recent = chosen(settings), RecentEmbeddings()
        self._held = HeldTo(self._embedder, self._recent)

    async def embed_together(self, texts: Sequence[str]) -> list["array[float] | Refused"]:
        """Messages, before any bulk; float32, which crosses processes in half the bytes of Python's floats."""
        return await asyncio.gather(*(answered(self._message(text)) for text in texts))

    async def _message(self, text: str) -> "array[float]":
        vector = await self._embedder.embed(text)
        self._recent.keep(text, vector)
        return array("f", vector)

    async def embed_many(self, texts: Sequence[str]) -> Sequence[Embedding] | Refused:
        return await answered(self._embedder.embed_many(texts))

    async def embed_with_states(
        self, texts: Sequence[str], urgent: bool
    ) -> "Sequence[tuple[array[float], States]] | Refused":
        """Vectors, and what goes into the model's last layers, for tenants with tuned heads. `urgent`: messages."""
        return await answered(self._stated(texts, urgent))

    async def _stated(self, texts: Sequence[str], urgent: bool) -> "list[tuple[array[float], States]]":
        if isinstance(self._embedder, HostedEmbedder):
            raise NotTunable("a provider's embedder has no layers that can be tuned")
        found = await self._embedder.embed_with_states(texts, urgent=urgent)
        if urgent:
            for text, (vector, _) in zip(texts, found, strict=True):
                self._recent.keep(text, vector)
        return [(array("f", vector), states) for vector, states in found]

    async def embed_for(self, embedder: str, texts: Sequence[str]) -> Sequence[Embedding] | Refused:
        """As `embed_many`, if this is that embedder. What was embedded a moment ago is not embedded again."""
        return await answered(self._held.embed_for(embedder, texts))

    async def count_tokens(self, texts: Sequence[str]) -> int | Refused:
        return await answered(self._embedder.count_tokens(texts))

    async def describe(self) -> Any:
        return await answered(self._embedder.describe())

    async def check_health(self) -> None:
        check_process()
        await self._embedder.check_health()
