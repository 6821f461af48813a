"""Finds the products that a message is about: as few searches as it takes, wider ones where a narrow one finds none."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from domain.claims import named
from domain.embedding import Embedding
from domain.product_facts import ProductFacts, no_facts, row_of
from domain.product_lexicon import Lexicon
from domain.product_query import ALL, Reading
from domain.product_words import words
from domain.products import Product, ProductCatalogue, ProductQuery

_CENT = Decimal("0.01")
NEAREST = 5  # products that are told where none fits


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found for a message. `scores`: the catalogue's, by id. `searches`: how many it took."""

    facts: ProductFacts
    products: tuple[Product, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    searches: int = 0


@dataclass(slots=True)
class _Found:
    """`total`: how many fit, where it is known; none do where these are the `nearest`."""

    products: list[Product]
    total: int | None = None
    nearest: bool = False


class ProductSearch:
    """Of one message. `last_answer`: the assistant's text before it, which says in which order products were shown.
    `told`: products that an answer may be given, at the most. Methods may raise `CatalogueUnavailable`."""

    def __init__(
        self,
        catalogue: ProductCatalogue,
        tenant: str,
        embedding: Embedding | None = None,
        last_answer: str = "",
        told: int = 20,
    ) -> None:
        self._catalogue, self._tenant, self._embedding = catalogue, tenant, embedding
        self._last_answer, self._told = last_answer, told
        self._scores: dict[str, float] = {}
        self._searches, self._stale = 0, 0.0

    async def seen(self, reading: Reading, lexicon: Lexicon) -> Seen:
        found = await self._answering(reading, lexicon.structure.total)
        facts = _facts(reading, found, lexicon)
        facts["stale"] = self._stale
        products = found.products[: self._told]
        facts["rows"] = [row_of(product) for product in products]
        return Seen(facts, tuple(products), self._scores, self._searches)

    async def _answering(self, reading: Reading, all_products: int) -> _Found:
        if reading.sides:
            return await self._compared(reading)
        if reading.ids:
            products = await self._catalogue.products(self._tenant, reading.ids)
            self._searches += 1
            if products or not (reading.category or reading.wishes or reading.words):
                return _Found(products, len(products))
        if reading.refers is not None and reading.before is not None:
            return await self._referred(reading, reading.before)
        if reading.cheaper and reading.before is not None:
            reading = await self._cheaper(reading, reading.before)
        if not (reading.names_products or reading.bounds or reading.kind in ("cheapest", "dearest")):
            items, _ = await self._all(ProductQuery(in_stock=reading.in_stock, limit=NEAREST, sort="title"))
            return _Found(items, all_products if reading.in_stock is None else None)
        return await self._fitting(reading)

    async def _fitting(self, reading: Reading) -> _Found:
        """What fits; else the nearest."""
        query = reading.query
        items, all_seen = await self._all(query)
        fit = self._ordered(reading, items)
        if not fit and query.text and query.sort != "relevance":  # nothing has all of the words
            items, all_seen = await self._all(replace(query, sort="relevance", limit=self._told))
            fit = self._ordered(reading, items)
            if fit and reading.every_variant and (group := fit[0].group_id):
                whole = replace(query, text="", category=None, group_id=group)
                items, all_seen = await self._all(whole)
                fit = self._ordered(reading, items)
        if not fit and query.text and (query.category or reading.wishes):
            items, all_seen = await self._all(replace(query, text="", sort="title", limit=ALL))
            fit = self._ordered(reading, items)
        if fit:
            return _Found(fit, len(fit) if all_seen else None)
        return _Found(await self._nearest(reading, query), 0, nearest=True)

    async def _nearest(self, reading: Reading, query: ProductQuery) -> list[Product]:
        """What is of the same kind, or has the words, and grants most of the wishes."""
        items: Sequence[Product] = ()
        if query.category:
            items, _ = await self._all(ProductQuery(category=query.category, sort="title", limit=ALL))
        elif query.text:
            items, _ = await self._all(ProductQuery(query.text))
        if not items and query.attributes:
            items, _ = await self._all(ProductQuery(attributes=query.attributes, sort="title", limit=ALL))
        ranked = sorted(
            items, key=lambda one: (-reading.met(one), -reading.covered(one), not one.in_stock, one.price or 0)
        )
        best = reading.met(ranked[0]) if ranked else 0
        return [one for one in ranked if not best or reading.met(one) >= best - 1][:NEAREST]

    def _ordered(self, reading: Reading, items: Sequence[Product]) -> list[Product]:
        """Those that fit; of equally good ones what is in stock first."""
        fit = [one for one in items if reading.fits(one)]
        if reading.words:
            best = max((reading.covered(one) for one in fit), default=0)
            fit = [one for one in fit if reading.covered(one) == best]
        if reading.kind in ("cheapest", "dearest"):
            sign = 1 if reading.kind == "cheapest" else -1
            return sorted(fit, key=lambda one: (one.price is None, sign * (one.price or 0), one.id))
        return sorted(fit, key=lambda one: one.in_stock is False)

    async def _compared(self, reading: Reading) -> _Found:
        """The best of each side: its cheapest one in stock, where there are several."""
        best: list[Product] = []
        for side in reading.sides:
            found = await self._fitting(side)
            if found.nearest or not found.products:
                return _Found(found.products, 0, nearest=True)
            best.append(min(found.products, key=lambda one: (one.in_stock is False, one.price or 0, one.id)))
        return _Found(best, len(best))

    async def _referred(self, reading: Reading, before: Reading) -> _Found:
        """The product that was shown at this place, as it is now; its like, where the message wants it otherwise."""
        shown = await self._shown(before)
        if not shown:
            return _Found([], 0)
        place = reading.refers or 0
        chosen = shown[place] if -len(shown) <= place < len(shown) else shown[-1]
        if not reading.wishes or reading.fits(chosen):
            now = await self._catalogue.products(self._tenant, [chosen.id])
            self._searches += 1
            if reading.kind == "values" and chosen.group_id:
                like = await self._group(chosen.group_id)
                return _Found(like, len(like))
            return _Found(now or [chosen], len(now))
        if not chosen.group_id:
            title = words(chosen.title)
            forms, said = tuple(word.form for word in title), tuple(word.said for word in title)
            return await self._fitting(replace(reading, words=forms, said=said))
        like = await self._group(chosen.group_id)
        fit = [one for one in like if reading.fits(one)]
        kept = [one for one in fit if _alike(one, chosen, reading)]
        return _Found(kept or fit, len(kept or fit)) if fit else _Found(like[:NEAREST], 0, nearest=True)

    async def _shown(self, before: Reading) -> list[Product]:
        """The products of the answer before, in the order in which it named them."""
        found = await self._answering(before, 0)
        said = named(self._last_answer, found.products)
        return list(said) or found.products

    async def _cheaper(self, reading: Reading, before: Reading) -> Reading:
        shown = await self._shown(before)
        prices = [one.price for one in shown[:NEAREST] if one.price is not None]
        if not prices:
            return reading
        bound = ProductQuery(max_price=min(prices) - _CENT, currency=shown[0].currency)
        return replace(reading, kind="cheapest" if reading.kind == "list" else reading.kind, bounds=(bound,))

    async def _all(self, query: ProductQuery) -> tuple[list[Product], bool]:
        """What is found, and whether that is all that there is."""
        if query.text and query.sort == "relevance":
            query = replace(query, embedding=self._embedding)
        found = await self._catalogue.search(self._tenant, query)
        self._searches += 1
        self._stale = max(self._stale, found.stale)
        self._scores.update((one.product.id, one.score) for one in found.items)
        whole = query.sort != "relevance" and len(found.items) < query.limit
        return [one.product for one in found.items], whole or found.total == len(found.items)

    async def _group(self, group: str) -> list[Product]:
        items, _ = await self._all(ProductQuery(group_id=group, sort="title", limit=ALL))
        return items


def _alike(product: Product, chosen: Product, reading: Reading) -> bool:
    """Whether it differs from the chosen one in nothing but what was asked for."""
    asked = {attribute for wish in reading.wishes for attribute in wish.values}
    return all(product.attributes.get(name) == value for name, value in chosen.attributes.items() if name not in asked)


def _facts(reading: Reading, found: _Found, lexicon: Lexicon) -> ProductFacts:
    facts = no_facts(reading.kind, wish_of(reading))
    products = found.products
    facts["nearest"], facts["total"] = found.nearest, found.total
    if found.nearest and products:
        facts["lacking"] = reading.lacks(products[0]) or list(reading.words)
    if found.total is not None and found.total <= len(products):
        facts["stocked"] = sum(one.in_stock is True for one in products)
    prices = [one.price for one in products if one.price is not None]
    if prices:
        facts["lowest"], facts["highest"] = min(prices), max(prices)
    if reading.sides and not found.nearest:
        facts["sides"] = [one.id for one in products]
    if reading.attribute is not None:
        facts["attribute"] = reading.attribute
        values = [one.attributes[reading.attribute] for one in products if reading.attribute in one.attributes]
        stocked = {
            one.attributes[reading.attribute]
            for one in products
            if reading.attribute in one.attributes and one.in_stock is not False
        }
        facts["values"] = sorted(dict.fromkeys(values), key=str.casefold)
        facts["gone"] = [value for value in facts["values"] if value not in stocked]
    if not reading.names_products:
        facts["categories"] = list(lexicon.structure.categories)[:12]
    return facts


def wish_of(reading: Reading) -> str:
    """What is looked for, in words."""
    if reading.sides:
        return " and ".join(wish_of(side) for side in reading.sides)
    if reading.refers is not None and reading.before is not None and not reading.wishes:
        return wish_of(reading.before)
    named = reading.category or " ".join(reading.words)
    if not named and reading.refers is not None and reading.before is not None:
        named = wish_of(reading.before)
    parts = [
        part
        for part in (
            named,
            *(f"not {w.said}" if w.negated and not w.said.startswith("not") else w.said for w in reading.wishes),
        )
        if part
    ]
    for bound in reading.bounds:
        if bound.min_price is not None:
            parts.append(f"from {bound.min_price} {bound.currency or ''}".strip())
        if bound.max_price is not None:
            parts.append(f"up to {bound.max_price} {bound.currency or ''}".strip())
    if reading.in_stock is not None:
        parts.append("in stock" if reading.in_stock else "out of stock")
    return ", ".join([*parts, *reading.ids])
