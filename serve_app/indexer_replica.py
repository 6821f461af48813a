"""What runs in each replica of the indexer: its parts, its figures, and how it is."""

import asyncio
from collections.abc import Callable
from typing import Any

from prometheus_client import Gauge
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.handles import HandleEmbedder
from deployments.indexer import Indexer
from deployments.product_indexer import ProductIndexer
from serve_app.process import check_process, prepare
from serve_app.replica_metrics import MetricsPage
from serve_app.settings import Settings
from serve_app.vectors import vectors
from storage.compatibility import check_pool
from storage.outbox import PostgresOutbox
from storage.postgres import open_pool
from storage.product_vectors import PostgresUnindexedProducts
from storage.redis import open_redis
from storage.spaces import PostgresSpaces
from storage.stored_texts import PostgresStoredTexts

CONSUMER = "indexer"


class IndexerReplica:
    """An `Indexer`, which works for as long as the replica lives. Others may work beside it."""

    async def __init__(self, embedder: DeploymentHandle) -> None:  # type: ignore[misc]
        settings = Settings()
        prepare(settings.log_level)
        self._pool = await open_pool(settings.required("database_url"), 4, 0, settings.database_pooled)
        await check_pool(self._pool)
        self._redis = open_redis(settings.required("redis_url"))
        spaces, embeds, open_store = PostgresSpaces(self._pool), HandleEmbedder(embedder), vectors(settings)
        self._products = ProductIndexer(PostgresUnindexedProducts(self._pool), spaces, embeds, open_store)
        self._indexer = Indexer(
            PostgresOutbox(self._pool, CONSUMER),
            spaces,
            PostgresStoredTexts(self._pool),
            embeds,
            open_store,
            forget_tenant=self._products.forget_tenant,
        )
        self._metrics = MetricsPage(serve.get_replica_context().deployment, self._redis)
        for name, text, value in (*_figures(self._indexer), *_product_figures(self._products)):
            Gauge(name, text, registry=self._metrics.registry).set_function(value)
        self._metrics.start()
        self._indexer.start()
        self._products.start()

    async def ping(self) -> dict[str, Any]:
        figures = self._indexer.figures
        return {
            "writable": figures.writable,
            "problem": figures.problem,
            "waiting": figures.lag.waiting,
            "set_aside": figures.lag.set_aside,
        }

    async def check_health(self) -> None:
        check_process()

    async def __del__(self) -> None:
        await asyncio.gather(self._indexer.close(), self._products.close(), return_exceptions=True)
        await self._metrics.close()
        await asyncio.gather(self._pool.close(), self._redis.aclose(), return_exceptions=True)


def _figures(indexer: Indexer) -> list[tuple[str, str, Callable[[], float]]]:
    figures = indexer.figures
    return [
        ("brain_indexer_lag_rows", "Events that wait to be indexed", lambda: figures.lag.waiting),
        ("brain_indexer_lag_seconds", "Age of the oldest of these", lambda: figures.lag.seconds),
        ("brain_indexer_set_aside", "Events given up", lambda: figures.lag.set_aside),
        ("brain_indexer_writable", "0 where the vectors are another embedder's", lambda: float(figures.writable)),
        ("brain_indexer_events", "Events done since the start", lambda: figures.done),
        ("brain_indexer_embedded", "Messages embedded since the start", lambda: figures.embedded),
        ("brain_indexer_written", "Vectors written since the start", lambda: figures.written),
        ("brain_indexer_removed", "Vectors removed since the start", lambda: figures.removed),
    ]


def _product_figures(indexer: ProductIndexer) -> list[tuple[str, str, Callable[[], float]]]:
    figures = indexer.figures
    return [
        ("brain_indexer_products_embedded", "Products embedded since the start", lambda: figures.embedded),
        ("brain_indexer_products_removed", "Products' vectors removed since the start", lambda: figures.removed),
        ("brain_indexer_products_left_out", "Products that could not be embedded", lambda: figures.left_out),
    ]
