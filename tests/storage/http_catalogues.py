"""Tenants' catalogues over HTTP as tests put them together: against the reference service, with a cache in Redis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from adapters.allow_list import AllowList
from adapters.catalog.asking import CONNECT, LIMIT, Asking, Endpoint
from adapters.catalog.keeping import Keeping
from adapters.outgoing import Outgoing
from domain.ids import new_id
from domain.model import Breaker
from serve_app.tenant_catalogues import TenantCatalogues
from storage.caches import RedisCache
from storage.redis import open_redis
from tests.doubles.catalogue_service import CatalogueService, Shop, serving_catalogues

LOOPBACK = AllowList.parse("127.0.0.0/8")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Known(dict[str, Endpoint]):
    async def settings(self, tenant: str) -> Endpoint | None:
        return self.get(tenant)


@dataclass
class HttpCatalogues:
    """`catalogues`: of tenants with a service. `clock`: the cache's, `monotonic`: the breaker's."""

    service: CatalogueService
    known: Known
    asking: Asking
    keeping: Keeping
    cache: RedisCache
    catalogues: TenantCatalogues
    clock: Clock
    monotonic: Clock
    redis_url: str

    def tenant(self, timeout: float = 5.0, headers: dict[str, str] | None = None) -> str:
        """A new one whose products come from a shop of the service."""
        tenant = new_id("ten")
        self.service.shops[tenant] = Shop()
        self.known[tenant] = Endpoint(self.service.url(tenant), headers or {}, timeout, new_id("req"))
        return tenant

    def shop(self, tenant: str) -> Shop:
        return self.service.shops[tenant]


@asynccontextmanager
async def http_catalogues(
    redis_url: str, built_in=None, breaker: Breaker | None = None, allowed: AllowList = LOOPBACK, at_once: int = 16
) -> AsyncIterator[HttpCatalogues]:
    known, clock, monotonic = Known(), Clock(), Clock()
    cache = RedisCache(open_redis(redis_url), "catalogue")
    async with (
        serving_catalogues() as service,
        Outgoing(allowed, limit=LIMIT, connect=CONNECT, keep=15, connections=1000) as outgoing,
    ):
        asking = Asking(outgoing, breaker or Breaker(failures=5, window=30, open=5), at_once, monotonic)
        keeping = Keeping(asking, cache, clock)
        catalogues = TenantCatalogues(built_in, keeping, known)
        yield HttpCatalogues(service, known, asking, keeping, cache, catalogues, clock, monotonic, redis_url)
        await keeping.close()
    await cache.close()
