"""A tenant's products, wherever they are kept: what is asked of a catalogue, and what it answers.

Field names follow the product data that shops hand to marketplaces (Google Merchant Center, Schema.org Offer): each
variant that can be bought on its own is a product, and those that are one article in several sizes share `group_id`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from domain.errors import BrainError
from domain.tenant import Caller

Sort = Literal["relevance", "price", "-price", "title"]


class Product(BaseModel):
    """`price`: in `currency` (ISO 4217), of one piece. `stock`: pieces at hand; None where nobody counts them, and then
    `available` is what is known. `attributes`: names in lower case, such as colour, size, material. `updated_at`: of
    the catalogue's row."""

    model_config = ConfigDict(frozen=True)

    id: str
    object: Literal["product"] = "product"
    title: str
    description: str | None = None
    url: str | None = None
    price: Decimal | None = None
    currency: str | None = None
    stock: int | None = None
    available: bool | None = None
    category: str | None = None
    group_id: str | None = None
    attributes: dict[str, str] = {}
    updated_at: datetime | None = None

    @property
    def in_stock(self) -> bool | None:
        return self.stock > 0 if self.stock is not None else self.available


@dataclass(frozen=True, slots=True)
class ProductQuery:
    """What is looked for. Everything given must hold; of several values of an attribute one must.

    `text`: words, in the user's own. `embedding`: of that text, where there is one. `after`: the id of the last product
    of the page before, in an order that `sort` gives (relevance has one page only).
    """

    text: str = ""
    category: str | None = None
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    min_price: Decimal | None = None
    max_price: Decimal | None = None
    currency: str | None = None
    in_stock: bool | None = None
    group_id: str | None = None
    sort: Sort = "relevance"
    limit: int = 20
    after: str | None = None
    embedding: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class FoundProduct:
    """`score`: higher is better, comparable within one answer only."""

    product: Product
    score: float


@dataclass(frozen=True, slots=True)
class FoundProducts:
    """`total`: how many fit in all, where the catalogue counts them. `stale`: seconds since it was true, where it is an
    older answer that stands in for a catalogue that is slow or down."""

    items: tuple[FoundProduct, ...]
    total: int | None = None
    stale: float = 0.0


@dataclass(frozen=True, slots=True)
class Offer:
    """What changes most often of a product, as it is now."""

    product_id: str
    price: Decimal | None
    currency: str | None
    stock: int | None
    available: bool | None


@dataclass(frozen=True, slots=True)
class Structure:
    """What a catalogue is made of: products in each category, and the values of each attribute, the most frequent first
    (at most 200 an attribute). `total`: products."""

    total: int
    categories: Mapping[str, int]
    attributes: Mapping[str, tuple[str, ...]]
    currencies: tuple[str, ...] = ()


class CatalogueUnavailable(BrainError):
    """The product catalogue does not answer."""

    status = 503
    type = "service_unavailable_error"
    code = "catalogue_unavailable"


class ProductCatalogue(Protocol):
    """One tenant never sees another's products. Every method may raise `CatalogueUnavailable`."""

    async def product(self, tenant: str, product_id: str) -> Product:
        """Raises `NotFound`."""
        ...

    async def products(self, tenant: str, ids: Sequence[str]) -> list[Product]:
        """Those of up to 100 ids that there are, in the order asked for."""
        ...

    async def search(self, tenant: str, query: ProductQuery) -> FoundProducts:
        """The best first; of equal ones the lower id first, so that the same question has the same answer."""
        ...

    async def structure(self, tenant: str) -> Structure: ...

    async def offers(self, tenant: str, ids: Sequence[str]) -> list[Offer]:
        """Prices and stock of up to 100 products as they are now, never from a cache; unknown ids are left out."""
        ...

    async def recommend(self, tenant: str, product_id: str, limit: int) -> FoundProducts:
        """Products that go with this one or are like it, never itself nor its own group. Raises `NotFound`."""
        ...


class ProductStore(ProductCatalogue, Protocol):
    """A catalogue whose products are kept here."""

    async def put(self, tenant: str, products: Sequence[Product], by: Caller | None = None) -> int:
        """Insert or replace up to 1,000 products in one transaction; how many were new. `by`: for the audit log."""
        ...

    async def delete(self, tenant: str, product_id: str, by: Caller | None = None) -> None:
        """Raises `NotFound`."""
        ...
