"""The products' vectors: which are near to what, and which products have none yet."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from domain.embedding import Embedding
from domain.indexing import SpaceEmbedder, Spaces, identity
from domain.product_indexing import ProductClaim, space_of_products
from domain.products import Product
from domain.vectors import Space, VectorStore
from storage.postgres import Pool, asking, reading
from storage.product_rows import BY_ID, product

log = logging.getLogger("brain.products")
T = TypeVar("T")

NEAR = 100  # products asked of the vectors, variants among them
LEAST = 0.25
"""The cosine below which nothing is meant. With all-MiniLM-L6-v2 and twelve questions to the demonstration's shop, what
had to do with a question began at 0.28, and what was nearest to questions about something else ended at 0.21."""
FRESH = 5.0  # seconds that the active space and the running embedder are taken to be the same
PATIENCE = 0.3  # seconds for the vectors; words do not wait longer
_SETTLE = """
WITH told AS (SELECT * FROM unnest($2::text[], $3::bigint[]) AS t (id, version)),
known AS (SELECT t.id, t.version = v.version AS same, v.text_hash IS NULL AS gone
    FROM told t JOIN brain.product_vectors v ON v.tenant_id = $1 AND v.product_id = t.id ORDER BY t.id FOR UPDATE OF v),
done AS (UPDATE brain.product_vectors v SET space = CASE WHEN k.same THEN $4 ELSE '' END, claimed_until = '-infinity'
    FROM known k WHERE v.tenant_id = $1 AND v.product_id = k.id AND NOT (k.same AND k.gone)),
forgotten AS (DELETE FROM brain.product_vectors v USING known k
    WHERE v.tenant_id = $1 AND v.product_id = k.id AND k.same AND k.gone)
SELECT id FROM told WHERE id NOT IN (SELECT id FROM known)
"""


class ProductVectors:
    """`open_store`: the vectors of a space."""

    def __init__(
        self,
        spaces: Spaces,
        embedder: SpaceEmbedder,
        open_store: Callable[[Space], VectorStore],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spaces, self._embedder, self._open_store, self._monotonic = spaces, embedder, open_store, monotonic
        self._open: tuple[Space, VectorStore] | None = None
        self._known: tuple[float, Space | None] = (float("-inf"), None)
        self._opening = asyncio.Lock()
        self._warming: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Open the vectors now, in the background: the first search would not wait for their library to be loaded."""
        self._warming = asyncio.create_task(self._warm())

    async def near(self, tenant: str, embedding: Embedding) -> list[str] | None:
        """The ids of the products that mean most nearly the same as a text of this embedding, which the running
        embedder made, the nearest first; None, with a word in the log, where they cannot be had."""

        async def ask(store: VectorStore) -> list[str]:
            return [one.id for one in await store.search(tenant, embedding, NEAR) if one.score >= LEAST]

        return await self._asked(ask, len(embedding))

    async def like(self, tenant: str, product_id: str) -> list[str] | None:
        """The ids of the products most like this one, itself first; None where they cannot be had."""

        async def ask(store: VectorStore) -> list[str]:
            found = await store.fetch(tenant, [product_id])
            return [one.id for one in await store.search(tenant, found[0].vector, NEAR)] if found else []

        return await self._asked(ask)

    async def close(self) -> None:
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        if self._open is not None:
            await self._open[1].close()

    async def _asked(self, ask: Callable[[VectorStore], Awaitable[T]], dimensions: int | None = None) -> T | None:
        try:
            async with asyncio.timeout(PATIENCE):
                store = await self._store(dimensions)
                return None if store is None else await ask(store)
        except Exception as error:
            log.warning("a search goes without the products' vectors: %s: %s", type(error).__name__, error)
            return None

    async def _warm(self) -> None:
        while True:
            with suppress(Exception):  # what is away now is tried again, and told by the searches
                if await self._store(None) is not None:
                    return
            await asyncio.sleep(FRESH)

    async def _store(self, dimensions: int | None) -> VectorStore | None:
        """The products' vectors in the active space; None where there is none, or another embedder runs."""
        looked, space = self._known
        if self._monotonic() - looked >= FRESH:
            known = await self._spaces.active()
            space = known.space if known is not None else None
            if space is not None and identity(await self._embedder.describe()) != space.embedder:
                space = None
            self._known = (self._monotonic(), space)
        if space is None or dimensions not in (None, space.dimensions):
            return None
        wanted = space_of_products(space)
        async with self._opening:
            if self._open is None or self._open[0] != wanted:
                before, self._open = self._open, (wanted, await asyncio.to_thread(self._open_store, wanted))
                if before is not None:
                    await before[1].close()
            return self._open[1]


class PostgresUnindexedProducts:
    """`domain.product_indexing.UnindexedProducts`. `lease`: seconds that a claim holds."""

    def __init__(self, pool: Pool, lease: float = 60) -> None:
        self._pool, self._lease = pool, timedelta(seconds=lease)
        self._after = ""  # the tenant whose turn was the last

    async def claim(self, space: str, limit: int) -> list[ProductClaim]:
        async with asking(self._pool) as lent:
            found = await lent.fetch(
                "SELECT * FROM brain.claim_products($1, $2, $3, $4)", space, self._lease, self._after, limit
            )
        claims = [ProductClaim(row["tenant_id"], row["product_id"], row["version"]) for row in found]
        self._after = claims[0].tenant if claims else ""
        return claims

    async def read(self, tenant: str, ids: Sequence[str]) -> dict[str, Product]:
        async with reading(self._pool, tenant) as lent:
            return {row["id"]: product(row) for row in await lent.fetch(BY_ID, tenant, list(ids))}

    async def settle(self, space: str, claims: Sequence[ProductClaim]) -> list[str]:
        if not claims:
            return []
        [tenant] = {claim.tenant for claim in claims}
        ids, versions = [claim.id for claim in claims], [claim.version for claim in claims]
        async with reading(self._pool, tenant) as lent:
            return [row["id"] for row in await lent.fetch(_SETTLE, tenant, ids, versions, space)]

    async def waiting(self, space: str) -> int:
        async with asking(self._pool) as lent:
            return int(await lent.fetchval("SELECT brain.waiting_products($1)", space))
