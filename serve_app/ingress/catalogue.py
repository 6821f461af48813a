"""What the routes of products ask: the catalogue that a tenant has, and the one that is kept here."""

from dataclasses import dataclass

from starlette.requests import Request

from adapters.allow_list import AllowList
from domain.errors import Unavailable
from domain.products import ProductCatalogue, ProductStore
from serve_app.tenant_catalogues import TenantCatalogues
from storage.catalogue_sources import PostgresCatalogueSources
from storage.sealing import MasterKeys


@dataclass(frozen=True, slots=True)
class Sources:
    """Services that tenants' products come from. `keys` seal their secrets. `allowed`: private addresses that they may
    have all the same."""

    stored: PostgresCatalogueSources
    keys: MasterKeys
    allowed: AllowList
    catalogues: TenantCatalogues


@dataclass(frozen=True, slots=True)
class Catalogue:
    """`read`: where a tenant's products are found. `store`: the built-in one, which can be written to. `sources`: None
    where every tenant has the built-in one."""

    read: ProductCatalogue
    store: ProductStore
    sources: Sources | None = None

    async def writable(self, tenant: str) -> ProductStore:
        """Raises `CatalogueElsewhere`."""
        if self.sources is not None:
            await self.sources.catalogues.check_kept_here(tenant)
        return self.store


def catalogue_of(request: Request) -> Catalogue:
    found: Catalogue | None = request.app.state.parts.catalogue
    if found is None:
        raise Unavailable("products are not kept here")
    return found


def sources_of(request: Request) -> Sources:
    found = catalogue_of(request).sources
    if found is None:
        raise Unavailable("every tenant has the built-in catalogue here")
    return found
