"""Keeps a vector of each product: claims those that lack one, embeds, writes, and settles last.

Whatever stops it, and wherever, is made good by whoever claims the products next; several of them may work at once.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from domain.errors import SpaceMismatch
from domain.indexing import SpaceEmbedder, Spaces, identity
from domain.product_indexing import ProductClaim, UnindexedProducts, embedded_text, space_of_products
from domain.vectors import Space, VectorRecord, VectorStore

log = logging.getLogger("brain.indexer")

BATCH = 128  # products
PAUSE, TROUBLE = 0.5, 5.0  # seconds between two looks, and the longest after a failure
ROUND = 10  # looks without work, after which the vectors that were written are put in order


@dataclass
class ProductFigures:
    """What this indexer has done since it began."""

    embedded: int = 0
    removed: int = 0
    left_out: int = 0


class ProductIndexer:
    """`open_store`: the vectors of a space."""

    def __init__(
        self,
        products: UnindexedProducts,
        spaces: Spaces,
        embedder: SpaceEmbedder,
        open_store: Callable[[Space], VectorStore],
    ) -> None:
        self._products, self._spaces, self._embedder, self._open_store = products, spaces, embedder, open_store
        self._open: tuple[Space, VectorStore] | None = None
        self._task: asyncio.Task[None] | None = None
        self._touched: set[str] = set()
        self._told: str | None = None
        self.figures = ProductFigures()

    def start(self) -> None:
        self._task = asyncio.create_task(self._work())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._open is not None:
            await self._open[1].close()

    async def step(self) -> int:
        """One batch, of one tenant: how many products it was; 0 too while there is no space of this embedder."""
        known = await self._spaces.active()
        if known is None or known.space.embedder != identity(await self._embedder.describe()):
            return 0
        claims = await self._products.claim(known.space.name, BATCH)
        if not claims:
            return 0
        store = await self._store(known.space)
        try:
            await self._index(known.space, store, claims)
        except Exception as error:
            if len(claims) == 1 or isinstance(error, SpaceMismatch) or not await self._reachable(known.space, store):
                raise
            log.warning("a batch of products failed, they are tried one by one: %s", error)
            await self._one_by_one(known.space, store, claims)
        self._touched.add(claims[0].tenant)
        return len(claims)

    async def forget_tenant(self, tenant: str) -> None:
        """Remove the vectors of a tenant that is gone."""
        known = await self._spaces.active()
        if known is not None:
            await (await self._store(known.space)).delete_tenant(tenant)

    async def put_in_order(self) -> None:
        """Optimise the vectors of tenants that were written to."""
        while self._touched and self._open is not None:
            await self._open[1].optimise(self._touched.pop())

    async def _index(self, space: Space, store: VectorStore, claims: Sequence[ProductClaim]) -> None:
        tenant = claims[0].tenant
        there = await self._products.read(tenant, [claim.id for claim in claims])
        products = list(there.values())
        made = (
            await self._embedder.embed_for(space.embedder, [embedded_text(one) for one in products]) if products else []
        )
        records = [
            VectorRecord(one.id, one.group_id or one.id, vector, "user", 0.0)
            for one, vector in zip(products, made, strict=True)
        ]
        if records:
            await store.upsert(tenant, records)
        gone = [claim.id for claim in claims if claim.id not in there]
        if gone:
            await store.delete(tenant, gone)
        forgotten = await self._products.settle(space.name, claims)
        if forgotten:
            await store.delete(tenant, forgotten)
        self.figures.embedded += len(records)
        self.figures.removed += len(gone)

    async def _one_by_one(self, space: Space, store: VectorStore, claims: Sequence[ProductClaim]) -> None:
        for claim in claims:
            try:
                await self._index(space, store, [claim])
            except Exception as error:
                if isinstance(error, SpaceMismatch) or not await self._reachable(space, store):
                    raise
                log.error("the product %s cannot be indexed: %s", claim.id, error, extra={"tenant": claim.tenant})
                self.figures.left_out += 1
                await self._products.settle(space.name, [claim])

    async def _reachable(self, space: Space, store: VectorStore) -> bool:
        with contextlib.suppress(Exception):
            await self._embedder.embed_for(space.embedder, ["."])
            await store.count(".")
            return True
        return False

    async def _store(self, space: Space) -> VectorStore:
        wanted = space_of_products(space)
        if self._open is None or self._open[0] != wanted:
            before, self._open = self._open, (wanted, await asyncio.to_thread(self._open_store, wanted))
            self._touched.clear()
            if before is not None:
                await before[1].close()
        return self._open[1]

    async def _work(self) -> None:
        pause, idle = PAUSE, 0
        while True:
            try:
                if await self.step():
                    pause, idle, self._told = PAUSE, 0, None
                    continue
                pause, idle = PAUSE, idle + 1
                if idle == ROUND:
                    await self.put_in_order()
            except Exception as error:
                pause = min(2 * pause, TROUBLE)
                self._say(f"products are not indexed at the moment: {type(error).__name__}: {error}")
            await asyncio.sleep(pause)

    def _say(self, words: str) -> None:
        """Once, until something else is to be said."""
        if words != self._told:
            self._told = words
            log.warning("%s", words)


async def index_all(indexer: ProductIndexer, advance: Callable[[int], None]) -> int:
    """Index until nothing waits that nobody else works on; `advance` hears of each batch. Gives how many it were."""
    indexed = 0
    while done := await indexer.step():
        indexed += done
        advance(done)
    await indexer.put_in_order()
    return indexed
