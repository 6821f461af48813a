"""The built-in catalogue: a tenant's products in Postgres, found by words, filters and meaning."""

import functools
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, ParamSpec, TypeVar

from domain.errors import NotFound, Unavailable
from domain.products import CatalogueUnavailable, FoundProduct, FoundProducts, Offer, Product, ProductQuery, Structure
from domain.tenant import Caller
from storage import product_rows as rows
from storage.audit import record
from storage.postgres import Connection, Pool, reading
from storage.product_vectors import ProductVectors
from storage.retry import again
from storage.spelling import corrected

P = ParamSpec("P")
T = TypeVar("T")

FUSION = 60
"""k of reciprocal rank fusion, as of the search in messages."""
SPARE = 20  # candidates more than asked for
MOST = 1000  # products of one `put`
START = 2  # letters in which nobody errs


def _here(call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """`call`, tried again as others are, whose failure is the catalogue's."""
    patient = again(call)

    @functools.wraps(call)
    async def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await patient(*args, **kwargs)
        except Unavailable as error:
            raise CatalogueUnavailable(str(error)) from error

    return called


class PostgresProducts:
    """`domain.products.ProductStore`. `vectors`: of the products; without them words alone count."""

    def __init__(self, pool: Pool, vectors: ProductVectors | None = None) -> None:
        self._pool, self._vectors = pool, vectors

    @_here
    async def product(self, tenant: str, product_id: str) -> Product:
        async with reading(self._pool, tenant) as lent:
            return await _one(lent, tenant, product_id)

    @_here
    async def products(self, tenant: str, ids: Sequence[str]) -> list[Product]:
        async with reading(self._pool, tenant) as lent:
            return await _all(lent, tenant, ids[:100])

    @_here
    async def search(self, tenant: str, query: ProductQuery) -> FoundProducts:
        """By relevance: by words and by meaning, merged by reciprocal rank; of a group its best variant stands for it,
        unless the group is asked for. Words of the question that no product has count as what they resemble."""
        if query.sort != "relevance":
            query = replace(query, embedding=None)
        near = await self._near(tenant, query)
        async with reading(self._pool, tenant) as lent:
            collapse = query.group_id is None and query.sort == "relevance"
            wanted = query.limit if near is None else 2 * query.limit + SPARE
            found = await _found(lent, query, wanted, collapse)
            if near is None:
                scores = {row["id"]: row["score"] for row in found}
                total = found[0]["total"] if found else (0 if query.after is None else None)
                return await _scored(lent, tenant, scores, total)
            meant = await _allowed(lent, replace(query, text=""), near, collapse)
            scores = _fused([found, meant] if query.text.strip() else [meant])
            return await _scored(lent, tenant, dict(list(scores.items())[: query.limit]), None)

    @_here
    async def structure(self, tenant: str) -> Structure:
        async with reading(self._pool, tenant) as lent:
            return rows.structure(
                await lent.fetch(rows.CATEGORIES, tenant),
                await lent.fetch(rows.ATTRIBUTES, tenant),
                await lent.fetch(rows.CURRENCIES, tenant),
            )

    @_here
    async def offers(self, tenant: str, ids: Sequence[str]) -> list[Offer]:
        async with reading(self._pool, tenant) as lent:
            there = {row["id"]: row for row in await lent.fetch(rows.OFFERS, tenant, list(ids[:100]))}
        return [rows.offer(there[id]) for id in dict.fromkeys(ids) if id in there]

    @_here
    async def recommend(self, tenant: str, product_id: str, limit: int) -> FoundProducts:
        """Merged by reciprocal rank: by the words of its title within its category, by meaning, and of these by price;
        others of its category where they are too few."""
        async with reading(self._pool, tenant) as lent:
            this = await _one(lent, tenant, product_id)
        near = await self._vectors.like(tenant, product_id) if self._vectors else None
        wanted, apart = limit + SPARE, this.group_id
        async with reading(self._pool, tenant) as lent:
            alike = ProductQuery(this.title, category=this.category)
            words = await lent.fetch(rows.FIND, *rows.arguments(alike, wanted, not_group=apart, collapse=True))
            meant = await _allowed(lent, ProductQuery(), near or (), True, apart)
            lists = [words, meant]
            if len({row["id"] for one in lists for row in one}) <= limit and this.category is not None:
                beside = ProductQuery(category=this.category)
                lists.append(
                    await lent.fetch(rows.FIND, *rows.arguments(beside, wanted, not_group=apart, collapse=True))
                )
            lists = [[row for row in one if row["id"] != product_id] for one in lists]
            lists.append(_by_price(this, lists, await _all(lent, tenant, _ids(lists))))
            return await _scored(lent, tenant, dict(list(_fused(lists).items())[:limit]), None)

    @_here
    async def put(self, tenant: str, products: Sequence[Product], by: Caller | None = None) -> int:
        """A product whose id comes twice is as it comes last; one that is as it was is not touched."""
        last = {one.id: one for one in products}
        if len(products) > MOST:
            raise ValueError(f"at most {MOST} products at once")
        if not last:
            return 0
        async with reading(self._pool, tenant) as lent:
            changed = await lent.fetch(rows.PUT, tenant, [rows.written(one) for one in last.values()])
            if changed:
                await _told(lent, tenant, "product.changed", [row["id"] for row in changed], by)
        return sum(row["new"] for row in changed)

    @_here
    async def delete(self, tenant: str, product_id: str, by: Caller | None = None) -> None:
        async with reading(self._pool, tenant) as lent:
            if await lent.fetchval(rows.DELETE, tenant, product_id) is None:
                raise NotFound("there is no such product")
            await _told(lent, tenant, "product.deleted", [product_id], by)

    async def _near(self, tenant: str, query: ProductQuery) -> list[str] | None:
        """The ids of products near in meaning; None where that is not asked, or cannot be."""
        if query.embedding is None or self._vectors is None or query.after is not None:
            return None
        return await self._vectors.near(tenant, query.embedding)


async def _one(lent: Connection, tenant: str, product_id: str) -> Product:
    found = await _all(lent, tenant, [product_id])
    if not found:
        raise NotFound("there is no such product")
    return found[0]


async def _all(lent: Connection, tenant: str, ids: Sequence[str]) -> list[Product]:
    there = {row["id"]: rows.product(row) for row in await lent.fetch(rows.BY_ID, tenant, list(ids))}
    return [there[id] for id in dict.fromkeys(ids) if id in there]


async def _found(lent: Connection, query: ProductQuery, limit: int, collapse: bool) -> list[Any]:
    found: list[Any] = await lent.fetch(rows.FIND, *rows.arguments(query, limit, collapse=collapse))
    if query.text.strip() and query.sort == "relevance" and (not found or found[0]["lacking"]):
        meant = await _respelt(lent, query.text)
        if meant != query.text:
            return list(
                await lent.fetch(rows.FIND, *rows.arguments(replace(query, text=meant), limit, collapse=collapse))
            )
    return found


async def _respelt(lent: Connection, text: str) -> str:
    for row in await lent.fetch("SELECT word FROM brain.unknown_words($1)", text.replace("\0", " ")):
        word = row["word"]
        known = await lent.fetch("SELECT lexeme FROM brain.like_lexemes($1)", word[:START])
        meant = corrected(word, (one["lexeme"] for one in known))
        if meant is not None:
            text = re.sub(rf"\b{re.escape(word)}\b", meant, text, flags=re.IGNORECASE)
    return text


async def _allowed(
    lent: Connection, query: ProductQuery, near: Sequence[str], collapse: bool, apart: str | None = None
) -> list[Any]:
    """Of these the ones that the query allows, in their order; one of each group."""
    if not near:
        return []
    found = await lent.fetch(rows.FIND, *rows.arguments(query, len(near), not_group=apart, ids=near, collapse=False))
    there, groups, kept = {row["id"]: row for row in found}, set(), []
    for row in (there[id] for id in near if id in there):
        if not collapse or _group(row) not in groups:
            groups.add(_group(row))
            kept.append(row)
    return kept


async def _scored(lent: Connection, tenant: str, scores: dict[str, float], total: int | None) -> FoundProducts:
    there = await _all(lent, tenant, list(scores)) if scores else []
    return FoundProducts(tuple(FoundProduct(one, scores[one.id]) for one in there), total)


async def _told(lent: Connection, tenant: str, topic: str, ids: Sequence[str], by: Caller | None) -> None:
    await lent.execute(
        "INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES ($1, $2, $3)", tenant, topic, {"product_ids": ids}
    )
    if by is not None:
        await record(lent, by, topic, ids[0] if len(ids) == 1 else None, {"products": len(ids)})


def _fused(lists: Iterable[Sequence[Any]]) -> dict[str, float]:
    """Scores by id, the best first; lists that have two variants of a group mean the same, and the first one is it."""
    scores: dict[str, float] = {}
    chosen: dict[str, str] = {}
    for found in lists:
        for rank, row in enumerate(found, 1):
            id = chosen.setdefault(_group(row), row["id"])
            scores[id] = scores.get(id, 0.0) + 1 / (FUSION + rank)
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))


def _group(row: Any) -> str:
    return f"g{row['group_id']}" if row["group_id"] is not None else f"p{row['id']}"


def _ids(lists: Iterable[Sequence[Any]]) -> list[str]:
    return list(dict.fromkeys(row["id"] for found in lists for row in found))


def _by_price(this: Product, lists: Sequence[Sequence[Any]], there: Sequence[Product]) -> list[Any]:
    """The rows of those with a price, the nearest first: twice as dear is as far as half as dear."""
    if not this.price:
        return []
    price, known = this.price, {row["id"]: row for found in lists for row in found}
    priced = [one for one in there if one.price and one.currency == this.currency]
    return [known[one.id] for one in sorted(priced, key=lambda one: (_ratio(one.price or price, price), one.id))]


def _ratio(a: Decimal, b: Decimal) -> Decimal:
    return max(a, b) / min(a, b)
