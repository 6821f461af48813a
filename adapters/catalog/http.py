"""A catalogue that a shop's own service keeps, over HTTP (docs/catalogue-service.yaml)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from adapters.catalog import contract, questions
from adapters.catalog.asking import Endpoint
from adapters.catalog.contract import Read
from adapters.catalog.keeping import Keeping
from adapters.catalog.questions import Question
from domain.errors import NotFound
from domain.given_products import is_product_id
from domain.products import FoundProducts, Offer, Product, ProductQuery, Structure

T = TypeVar("T")
MOST_IDS = 100


@dataclass(frozen=True, slots=True)
class HttpCatalogue:
    """`domain.products.ProductCatalogue` of the tenant that has set this service. `remembers`: whether it may answer
    with what the service answered before."""

    endpoint: Endpoint
    keeping: Keeping
    remembers: bool = True

    async def product(self, tenant: str, product_id: str) -> Product:
        if not is_product_id(product_id):
            raise NotFound("there is no such product")
        return (await self._get(tenant, questions.of_product(product_id), contract.product(product_id)))[0]

    async def products(self, tenant: str, ids: Sequence[str]) -> list[Product]:
        asked = [id for id in ids if is_product_id(id)][:MOST_IDS]
        if not asked:
            return []
        found, _ = await self._get(tenant, questions.of_products(asked), contract.products)
        return contract.in_order(asked, {one.id: one for one in found})

    async def search(self, tenant: str, query: ProductQuery) -> FoundProducts:
        """The meaning of words is the service's to find: it gets the words."""
        if query.sort == "relevance" and query.after is not None:
            return FoundProducts(())  # there is one page
        found, stale = await self._get(tenant, questions.search(query), contract.found)
        return replace(found, items=found.items[: query.limit], stale=stale)

    async def structure(self, tenant: str) -> Structure:
        return (await self._get(tenant, questions.STRUCTURE, contract.structure))[0]

    async def offers(self, tenant: str, ids: Sequence[str]) -> list[Offer]:
        asked = [id for id in ids if is_product_id(id)][:MOST_IDS]
        if not asked:
            return []
        found = await self.keeping.ask(tenant, self.endpoint, questions.of_offers(asked), contract.offers)
        return contract.in_order(asked, {one.product_id: one for one in found})

    async def recommend(self, tenant: str, product_id: str, limit: int) -> FoundProducts:
        if not is_product_id(product_id):
            raise NotFound("there is no such product")
        found, stale = await self._get(tenant, questions.like(product_id, limit), contract.found)
        others = tuple(one for one in found.items if one.product.id != product_id)
        return FoundProducts(others[:limit], found.total, stale)

    async def _get(self, tenant: str, question: Question, read: Read[T]) -> tuple[T, float]:
        if not self.remembers:
            return await self.keeping.ask(tenant, self.endpoint, question, read), 0.0
        return await self.keeping.get(tenant, self.endpoint, question, read)
