"""Keeping a vector of each product in the built-in catalogue: what an indexer of products needs of what is stored.

Which products lack one stands beside them, so nothing is told of that may be lost: a stopped indexer, another embedder
and a restored backup are the same thing, products without a vector in the space that counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from domain.products import Product
from domain.vectors import Space


@dataclass(frozen=True, slots=True)
class ProductClaim:
    """A product that an indexer works on. `version`: of its text."""

    tenant: str
    id: str
    version: int


class UnindexedProducts(Protocol):
    """Every method may raise `Unavailable`."""

    async def claim(self, space: str, limit: int) -> list[ProductClaim]:
        """Products of one tenant that have no vector in this space, now this indexer's for a lease; the tenants take
        turns."""
        ...

    async def read(self, tenant: str, ids: Sequence[str]) -> dict[str, Product]:
        """Those of them that are there, by id."""
        ...

    async def settle(self, space: str, claims: Sequence[ProductClaim]) -> list[str]:
        """What was claimed is as this space has it now, or has none and is gone; what has changed meanwhile waits
        again. Gives the ids of which nothing is known any more: their vectors have to go."""
        ...

    async def waiting(self, space: str) -> int:
        """How many products have no vector in this space; 100,000 stand for any more."""
        ...


def space_of_products(space: Space) -> Space:
    """Where the products' vectors are while `space` is that of the messages: of the same embedder, never among them."""
    return Space(f"{space.name}p", space.embedder, space.dimensions)


def embedded_text(product: Product) -> str:
    """What a product's vector is made of. Prices and stock are left to filters."""
    attributes = ", ".join(f"{name}: {value}" for name, value in sorted(product.attributes.items()))
    return "\n".join(filter(None, (product.title, product.category, attributes, product.description)))
