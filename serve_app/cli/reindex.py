"""`brain reindex`: vectors of all messages made anew, beside those that are searched meanwhile."""

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Annotated

import typer

from serve_app.cli.database import with_database
from serve_app.cli.options import Data, read_settings
from serve_app.cli.progress import counted
from serve_app.embedded.refusal import Refusal
from serve_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from domain.indexing import KnownSpace, SpaceEmbedder
    from domain.vectors import Space, VectorStore
    from storage.postgres import Pool
    from storage.spaces import PostgresSpaces


def reindex(
    data: Data = None,
    discard: Annotated[
        bool, typer.Option("--discard", help="Give up a space that an earlier run has begun, and do nothing else.")
    ] = False,
) -> None:
    """Index all messages and products anew with the embedder of BRAIN_EMBEDDER_MODEL, while the service runs or not.

    The new vectors stand beside the old ones, which are searched until all is done; then one transaction puts them in
    their place, and the service removes the old ones minutes later. Stopped, it goes on where it was. What is written
    and deleted meanwhile is indexed afterwards from the outbox.
    """
    settings = read_settings()
    if data is not None:
        settings = settings.model_copy(update={"data": data})

    def work(url: str) -> None:
        typer.echo(asyncio.run(_discarded(url, settings) if discard else _reindexed(url, settings)))

    if settings.database_url is not None:  # as the service does: an administrator's login sees more than it should
        work(settings.database_url.get_secret_value())
    else:
        with_database(data, work)


async def _discarded(url: str, settings: Settings) -> str:
    from storage.postgres import open_pool
    from storage.spaces import PostgresSpaces

    pool = await open_pool(url, 1, pooled=settings.database_pooled)
    try:
        spaces = PostgresSpaces(pool)
        building = await spaces.building()
        if building is None or not await spaces.retire(building.space.name):
            raise Refusal("no space is being built")
        return f"{building.space.name} ({building.space.embedder}) is given up; the service removes its vectors"
    finally:
        await pool.close()


async def _reindexed(url: str, settings: Settings) -> str:
    from domain.errors import BrainError
    from serve_app.embedders import HeldTo, chosen
    from serve_app.vectors import vectors
    from storage.postgres import open_pool

    try:
        embedder = HeldTo(await asyncio.to_thread(chosen, settings))
    except (OSError, ValueError) as error:
        raise Refusal(f"the embedder {settings.embedder_model} cannot be loaded: {error}") from None
    pool = await open_pool(url, 4, pooled=settings.database_pooled)
    try:
        return await build_space(pool, embedder, vectors(settings))
    except BrainError as error:
        raise Refusal(f"{error}; `brain reindex` goes on from there") from None
    finally:
        await pool.close()


async def build_space(pool: "Pool", embedder: "SpaceEmbedder", open_store: "Callable[[Space], VectorStore]") -> str:
    """Fill the space that is being built, or a new one, and make it the active one; then do the same with products,
    which are found by their words meanwhile. Says what was done."""
    from deployments.space_filling import fill_page
    from deployments.vector_sync import VectorSync
    from domain.errors import BrainError
    from storage.spaces import PostgresSpaces
    from storage.stored_texts import PostgresStoredTexts

    spaces, texts = PostgresSpaces(pool, lease=30), PostgresStoredTexts(pool)
    space = (await _begun(spaces, embedder)).space
    place = await spaces.fill(space.name)
    if place is None:
        raise Refusal("another `brain reindex` is at work, or was killed less than a minute ago")
    began, indexed = time.monotonic(), 0
    total, rest = await texts.count_after("", ""), await texts.count_after(*place)
    store = open_store(space)
    sync = VectorSync(texts, embedder, space, store)
    try:
        with counted("messages", total - rest, total) as advance:
            while page := await fill_page(space.name, spaces, texts, sync):
                indexed += page
                advance(page)
        if page is None:
            raise Refusal("another process has taken this over, or it was discarded")
        for tenant in sync.touched:
            await store.optimise(tenant)
    finally:
        with contextlib.suppress(BrainError):  # else its lease runs out
            await spaces.leave(space.name)
        await store.close()
    seconds = time.monotonic() - began
    products = await _products(pool, spaces, embedder, open_store, space)
    return f"{indexed:,} messages in {seconds:.1f} s, {products:,} products; {space.embedder} is searched from now on"


async def _products(
    pool: "Pool",
    spaces: "PostgresSpaces",
    embedder: "SpaceEmbedder",
    open_store: "Callable[[Space], VectorStore]",
    space: "Space",
) -> int:
    from deployments.product_indexer import ProductIndexer, index_all
    from storage.product_vectors import PostgresUnindexedProducts

    products = PostgresUnindexedProducts(pool)
    indexer = ProductIndexer(products, spaces, embedder, open_store)
    try:
        with counted("products", 0, await products.waiting(space.name)) as advance:
            return await index_all(indexer, advance)
    finally:
        await indexer.close()


async def _begun(spaces: "PostgresSpaces", embedder: "SpaceEmbedder") -> "KnownSpace":
    from domain.indexing import identity

    info = await embedder.describe()
    building = await spaces.building()
    if building is None:
        await spaces.create(info, "building")
        building = await spaces.building()
    if building is None:
        raise Refusal("a space was given up in this moment: try again")
    if building.space.embedder != identity(info):
        raise Refusal(
            f"a space for {building.space.embedder} is half built, and the embedder is {identity(info)}:"
            " go on with that one, or run `brain reindex --discard` first"
        )
    return building
