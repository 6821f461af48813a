"""A catalogue in memory that answers as the port asks, slowly or not at all where a test wants it so."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from domain.errors import NotFound
from domain.product_words import forms
from domain.products import (
    CatalogueUnavailable,
    FoundProduct,
    FoundProducts,
    Offer,
    Product,
    ProductQuery,
    Structure,
)


@dataclass
class MemoryCatalogue:
    """`down`: every call fails. `slow`: seconds that each takes; `calls` are what was asked, in order."""

    held: dict[str, dict[str, Product]] = field(default_factory=dict)
    down: bool = False
    slow: float = 0.0
    calls: list[tuple[str, object]] = field(default_factory=list)

    async def _asked(self, name: str, what: object) -> None:
        self.calls.append((name, what))
        if self.slow:
            await asyncio.sleep(self.slow)
        if self.down:
            raise CatalogueUnavailable("the catalogue is down")

    def of(self, tenant):
        return self.held.get(tenant, {})

    async def product(self, tenant, product_id):
        await self._asked("product", product_id)
        if product_id not in self.of(tenant):
            raise NotFound(product_id)
        return self.of(tenant)[product_id]

    async def products(self, tenant, ids):
        await self._asked("products", tuple(ids))
        return [self.of(tenant)[one] for one in ids if one in self.of(tenant)]

    async def search(self, tenant, query: ProductQuery):
        await self._asked("search", query)
        found = [one for one in self.of(tenant).values() if _fits(one, query)]
        words = forms(query.text)
        scored = [(one, _score(one, words)) for one in found]
        if words:
            whole = query.sort != "relevance"
            scored = [(one, score) for one, score in scored if (_has(one, words) if whole else score)]
        keys = {
            "relevance": lambda pair: (-pair[1], pair[0].id),
            "price": lambda pair: (pair[0].price is None, pair[0].price or 0, pair[0].id),
            "-price": lambda pair: (pair[0].price is None, -(pair[0].price or 0), pair[0].id),
            "title": lambda pair: (pair[0].title, pair[0].id),
        }
        scored.sort(key=keys[query.sort])
        if query.sort == "relevance" and query.group_id is None:
            best = {one.group_id or f" {one.id}": (one, score) for one, score in reversed(scored)}
            scored = sorted(best.values(), key=keys["relevance"])
        items = tuple(FoundProduct(one, score) for one, score in scored[: query.limit])
        return FoundProducts(items, len(scored) if query.sort == "relevance" else None)

    async def structure(self, tenant):
        await self._asked("structure", None)
        return structure_of(self.of(tenant).values())

    async def offers(self, tenant, ids):
        await self._asked("offers", tuple(ids))
        held = self.of(tenant)
        return [
            Offer(one, held[one].price, held[one].currency, held[one].stock, held[one].available)
            for one in ids
            if one in held
        ]

    async def recommend(self, tenant, product_id, limit):
        one = await self.product(tenant, product_id)
        like = [p for p in self.of(tenant).values() if p.category == one.category and p.group_id != one.group_id]
        return FoundProducts(tuple(FoundProduct(p, 1.0) for p in like[:limit]), len(like))

    async def put(self, tenant, products, by=None):
        held = self.held.setdefault(tenant, {})
        new = sum(one.id not in held for one in products)
        held.update((one.id, one) for one in products)
        return new

    async def delete(self, tenant, product_id, by=None):
        if self.held.get(tenant, {}).pop(product_id, None) is None:
            raise NotFound(product_id)


def structure_of(products) -> Structure:
    products = list(products)
    values: dict[str, Counter] = {}
    for one in products:
        for name, value in one.attributes.items():
            values.setdefault(name, Counter())[value] += 1
    return Structure(
        len(products),
        dict(Counter(one.category for one in products if one.category).most_common()),
        {name: tuple(value for value, _ in counts.most_common(200)) for name, counts in values.items()},
        tuple(sorted({one.currency for one in products if one.currency})),
    )


def _fits(one: Product, query: ProductQuery) -> bool:
    return (
        (query.category is None or one.category == query.category)
        and all(one.attributes.get(name) in values for name, values in query.attributes.items())
        and (query.min_price is None or (one.price is not None and one.price >= query.min_price))
        and (query.max_price is None or (one.price is not None and one.price <= query.max_price))
        and (query.currency is None or one.currency == query.currency)
        and (query.in_stock is None or one.in_stock is query.in_stock)
        and (query.group_id is None or one.group_id == query.group_id)
    )


def _has(one: Product, words) -> bool:
    told = set(forms(" ".join((one.title, one.category or "", one.description or "", *one.attributes.values()))))
    return all(word in told for word in words)


def _score(one: Product, words) -> float:
    told = set(forms(" ".join((one.title, one.category or "", one.description or "", *one.attributes.values()))))
    title = set(forms(one.title))
    return sum(1.0 + (word in title) for word in words if word in told)
