"""The embedder that the settings name."""

from collections.abc import Sequence

from deployments.embedder import INT8, PACKAGED, Embedder
from deployments.hosted_embedder import HostedEmbedder, provider_at
from deployments.recent_embeddings import RecentEmbeddings
from domain.embedding import EmbedderInfo, Embedding
from domain.errors import OtherEmbedder
from domain.indexing import identity
from serve_app.settings import Settings


def chosen(settings: Settings) -> Embedder | HostedEmbedder:
    """A model of this process, or a provider's where the settings name a URL. Raises ValueError for what cannot be."""
    check(settings)
    if settings.embedder_url is None:
        return Embedder(settings.embedder_model, precision=settings.embedder_precision)
    if settings.embedder_model == PACKAGED:
        raise ValueError("BRAIN_EMBEDDER_URL needs the name of a model in BRAIN_EMBEDDER_MODEL")
    key = "${BRAIN_EMBEDDER_KEY}" if settings.embedder_key is not None else None
    return HostedEmbedder(
        provider_at(settings.embedder_url, key), settings.embedder_model, dimensions=settings.embedder_dimensions
    )


def check(settings: Settings) -> None:
    """Raises ValueError where the precision cannot be had, before anything is loaded."""
    if settings.embedder_precision != INT8:
        return
    if settings.embedder_url is not None:
        raise ValueError("a provider's precision is its own: unset it, or BRAIN_EMBEDDER_URL")
    from deployments.onnx_encoder import check_model

    check_model(settings.embedder_model)


class HeldTo:
    """`domain.indexing.SpaceEmbedder` over an embedder of this process. `recent`: vectors that it need not make."""

    def __init__(self, embedder: Embedder | HostedEmbedder, recent: RecentEmbeddings | None = None) -> None:
        self._embedder, self._recent = embedder, recent or RecentEmbeddings()

    async def describe(self) -> EmbedderInfo:
        return await self._embedder.describe()

    async def embed_for(self, embedder: str, texts: Sequence[str]) -> list[Embedding]:
        running = identity(await self._embedder.describe())
        if running != embedder:
            raise OtherEmbedder.of(embedder, running)
        return await self._recent.embed(texts, self._embedder.embed_many)
