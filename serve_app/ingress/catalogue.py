"""What the routes of products ask: the catalogue that a tenant has, and the one that is kept here."""

from dataclasses import dataclass

from starlette.requests import Request

from domain.errors import Unavailable
from domain.products import ProductCatalogue, ProductStore


@dataclass(frozen=True, slots=True)
class Catalogue:
    """`read`: where a tenant's products are found. `store`: the built-in one, which can be written to."""

    read: ProductCatalogue
    store: ProductStore


def catalogue_of(request: Request) -> Catalogue:
    found: Catalogue | None = request.app.state.parts.catalogue
    if found is None:
        raise Unavailable("products are not kept here")
    return found
