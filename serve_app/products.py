"""The catalogues of a replica."""

from dataclasses import dataclass

from asyncpg import Pool
from prometheus_client import CollectorRegistry, Counter

from adapters.catalog.asking import CONNECT, LIMIT, Asking, Endpoint
from adapters.catalog.keeping import Keeping
from adapters.outgoing import Outgoing
from domain.indexing import SpaceEmbedder
from serve_app.ingress.catalogue import Catalogue, Sources
from serve_app.settings import Settings
from serve_app.tenant_catalogues import TenantCatalogues, endpoints
from serve_app.vectors import vectors
from storage.caches import RedisCache
from storage.catalog import CachedSettings
from storage.catalogue_sources import PostgresCatalogueSources
from storage.product_vectors import ProductVectors
from storage.products import PostgresProducts
from storage.redis import open_redis
from storage.spaces import PostgresSpaces

CACHE = "catalogue"
CACHE_ANSWERS = 0.25  # seconds: a cache that is slower costs more than it spares
KEEP = 15.0  # seconds that connections to services stay open
CONNECTIONS = 1000


@dataclass(frozen=True, slots=True)
class OpenProducts:
    """`catalogue`: for routes and turns. `known`: tenants' sources, to be forgotten when they change. `cache`: of
    services' answers."""

    catalogue: Catalogue
    read: TenantCatalogues
    known: CachedSettings[Endpoint | None]
    cache: RedisCache
    keeping: Keeping
    outgoing: Outgoing
    near: ProductVectors

    def count(self, registry: CollectorRegistry) -> None:
        answers = Counter(
            "brain_catalogue_answers",
            "Answers of tenants' own catalogues: fresh or stale from memory, asked, failed",
            ["answer"],
            registry=registry,
        )
        self.keeping.saw = lambda how: answers.labels(how).inc()

    async def close(self) -> None:
        await self.near.close()
        await self.keeping.close()
        await self.outgoing.__aexit__()
        await self.cache.close()


async def open_products(settings: Settings, pool: Pool, embedder: SpaceEmbedder) -> OpenProducts:
    near = ProductVectors(PostgresSpaces(pool), embedder, vectors(settings))
    built_in = PostgresProducts(pool, near)
    allowed, keys = settings.outgoing, settings.master_keys
    outgoing = Outgoing(allowed, limit=LIMIT, connect=CONNECT, keep=KEEP, connections=CONNECTIONS)
    cache = RedisCache(open_redis(settings.required("redis_url"), timeout=CACHE_ANSWERS), CACHE)
    keeping = Keeping(Asking(await outgoing.__aenter__()), cache)
    stored = PostgresCatalogueSources(pool)
    known = endpoints(stored, keys)
    read = TenantCatalogues(built_in, keeping, known)
    catalogue = Catalogue(read, built_in, Sources(stored, keys, allowed, read))
    near.start()
    return OpenProducts(catalogue, read, known, cache, keeping, outgoing, near)
