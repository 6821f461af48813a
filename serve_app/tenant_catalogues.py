"""Of each tenant the catalogue that it has: the built-in one, or that of a service of its own."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from adapters.catalog.asking import Endpoint
from adapters.catalog.http import HttpCatalogue
from adapters.catalog.keeping import Keeping
from domain.catalogue_sources import CatalogueElsewhere, CatalogueSource
from domain.errors import BrainError
from domain.products import (
    CatalogueUnavailable,
    FoundProducts,
    Offer,
    Product,
    ProductCatalogue,
    ProductQuery,
    Structure,
)
from storage.access import AccessChange
from storage.catalog import CachedSettings
from storage.catalogue_sources import CHANGED, PostgresCatalogueSources, seal_name
from storage.sealing import CannotOpen, MasterKeys


class Endpoints(Protocol):
    """What is known of tenants' sources; None: products are kept here."""

    async def settings(self, tenant: str) -> Endpoint | None: ...


def endpoints(stored: PostgresCatalogueSources, keys: MasterKeys) -> CachedSettings[Endpoint | None]:
    """Read again when a change is heard of (`heard`), and after a minute."""

    async def read(tenant: str) -> Endpoint | None:
        found = await stored.with_secret(tenant)
        if found is None:
            return None
        source, sealed = found
        return Endpoint(source.url, _headers(keys, tenant, source, sealed), source.timeout_ms / 1000, source.version)

    return CachedSettings(read)


def forgets_endpoints(known: CachedSettings[Endpoint | None], *others: Callable[[str | None], None]) -> "Heard":
    """A listener of `AccessWatch` that makes `known` forget the sources that changed; `others` hear of each such
    tenant, None: of all."""

    def heard(changes: list[AccessChange] | None) -> None:
        changed = None if changes is None else [one.tenant for one in changes if one.kind == CHANGED]
        if changed is None or changed:
            known.forget(changed)
        for other in others:
            for tenant in [None] if changed is None else changed:
                other(tenant)

    return heard


Heard = Callable[[list[AccessChange] | None], Awaitable[None] | None]


class TenantCatalogues:
    """`domain.products.ProductCatalogue` over `built_in`, and whatever services tenants have set."""

    def __init__(self, built_in: ProductCatalogue, keeping: Keeping, known: Endpoints) -> None:
        self._built_in, self._keeping, self._known = built_in, keeping, known

    async def of(self, tenant: str, remembers: bool = True) -> ProductCatalogue:
        """`remembers`: whether it may answer with what it was told before."""
        endpoint = await self._endpoint(tenant)
        return self._built_in if endpoint is None else HttpCatalogue(endpoint, self._keeping, remembers)

    async def check_kept_here(self, tenant: str) -> None:
        """Raises `CatalogueElsewhere`."""
        if await self._endpoint(tenant) is not None:
            raise CatalogueElsewhere

    async def product(self, tenant: str, product_id: str) -> Product:
        return await (await self.of(tenant)).product(tenant, product_id)

    async def products(self, tenant: str, ids: Sequence[str]) -> list[Product]:
        return await (await self.of(tenant)).products(tenant, ids)

    async def search(self, tenant: str, query: ProductQuery) -> FoundProducts:
        return await (await self.of(tenant)).search(tenant, query)

    async def structure(self, tenant: str) -> Structure:
        return await (await self.of(tenant)).structure(tenant)

    async def offers(self, tenant: str, ids: Sequence[str]) -> list[Offer]:
        return await (await self.of(tenant)).offers(tenant, ids)

    async def recommend(self, tenant: str, product_id: str, limit: int) -> FoundProducts:
        return await (await self.of(tenant)).recommend(tenant, product_id, limit)

    async def _endpoint(self, tenant: str) -> Endpoint | None:
        try:
            return await self._known.settings(tenant)
        except CatalogueUnavailable:
            raise
        except BrainError as error:
            raise CatalogueUnavailable(str(error)) from error


def _headers(keys: MasterKeys, tenant: str, source: CatalogueSource, sealed: dict[str, str] | None) -> dict[str, str]:
    if sealed is None:
        return {}
    try:
        secret = keys.open(sealed, seal_name(tenant, source.url)).decode()
    except CannotOpen as error:
        raise CatalogueUnavailable(f"the secret of the catalogue's service cannot be opened: {error}") from None
    return {source.header: secret} if source.header is not None else {"authorization": f"Bearer {secret}"}
