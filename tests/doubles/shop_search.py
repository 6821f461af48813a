"""A small search in a shop's products, as good as the contract of catalogues asks."""

import re
from collections import Counter
from collections.abc import Iterable

from domain.products import FoundProduct, Product, ProductQuery

_SAID = "a an and at do does for have i in is it me my of on or show the there to what you your"
_SAY_NOTHING = frozenset(_SAID.split())
_ENDINGS = ("ing", "es", "ed", "s", "e")


class NoSuchProduct(Exception):
    """There is no product to go on after."""


def stems(text: str) -> list[str]:
    plain = re.sub(r"['’]s\b", "", text.lower())
    return [_stem(word) for word in re.findall(r"\w+", plain) if word not in _SAY_NOTHING]


def search(products: Iterable[Product], query: ProductQuery) -> tuple[list[FoundProduct], int | None]:
    """The page, and how many fit where they are counted."""
    everything = list(products)
    fit = [one for one in everything if _fits(one, query)]
    asked = list(dict.fromkeys(stems(query.text)))
    if query.sort != "relevance":
        return _page(everything, [one for one in fit if all(word in told(one) for word in asked)], query), None
    known = [word for word in asked if any(word in told(one) for one in everything)]
    if asked and not known:
        return [], 0
    covered = {one.id: sum(word in told(one) for word in known) for one in fit}
    most = max(covered.values(), default=0)
    scored = [
        FoundProduct(one, covered[one.id] + 0.1 * sum(word in stems(one.title) for word in known))
        for one in fit
        if not known or (covered[one.id] and 2 * covered[one.id] >= most)
    ]
    scored.sort(key=lambda one: (-one.score, one.product.in_stock is not True, one.product.id))
    if query.group_id is None:
        best = {one.product.group_id or f" {one.product.id}": one for one in reversed(scored)}
        scored = list(best.values())
    scored.sort(key=lambda one: (-one.score, one.product.id))
    return scored[: query.limit], len(scored)


def alike(products: Iterable[Product], this: Product, limit: int) -> list[FoundProduct]:
    """Of the same category, those whose titles share most words first; never this one, nor its group."""
    title = set(stems(this.title))
    others = [
        FoundProduct(one, len(title & set(stems(one.title))))
        for one in products
        if one.id != this.id and one.category == this.category and (one.group_id or one.id) != this.group_id
    ]
    return sorted(others, key=lambda one: (-one.score, one.product.id))[:limit]


def structure(products: Iterable[Product]) -> dict:
    every = list(products)
    values: dict[str, Counter] = {}
    for one in every:
        for name, value in one.attributes.items():
            values.setdefault(name, Counter())[value] += 1
    categories = Counter(one.category for one in every if one.category)
    return {
        "total": len(every),
        "categories": [{"name": name, "products": n} for name, n in categories.most_common()],
        "attributes": {name: [value for value, _ in counts.most_common(200)] for name, counts in values.items()},
        "currencies": [name for name, _ in Counter(one.currency for one in every if one.currency).most_common()],
    }


def told(one: Product) -> set[str]:
    return set(stems(" ".join((one.title, one.category or "", one.description or "", *one.attributes.values()))))


def _page(everything: list[Product], fit: list[Product], query: ProductQuery) -> list[FoundProduct]:
    sign = -1 if query.sort == "-price" else 1

    def key(one: Product) -> tuple:
        if query.sort == "title":
            return (one.title.casefold(), one.id)
        return (one.price is None, sign * (one.price or 0), one.id)

    if query.after is not None:
        last = next((one for one in everything if one.id == query.after), None)
        if last is None:
            raise NoSuchProduct(query.after)
        fit = [one for one in fit if key(one) > key(last)]
    return [FoundProduct(one, 0.0) for one in sorted(fit, key=key)[: query.limit]]


def _fits(one: Product, query: ProductQuery) -> bool:
    attributes = {name: value.casefold() for name, value in one.attributes.items()}
    return (
        (query.category is None or f"{one.category} >".startswith(f"{query.category} >"))
        and all(
            attributes.get(name.lower()) in [value.casefold() for value in values]
            for name, values in query.attributes.items()
        )
        and (query.min_price is None or (one.price is not None and one.price >= query.min_price))
        and (query.max_price is None or (one.price is not None and one.price <= query.max_price))
        and (query.currency is None or one.currency == query.currency)
        and (query.in_stock is None or one.in_stock is query.in_stock)
        and (query.group_id is None or one.group_id == query.group_id)
    )


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word
