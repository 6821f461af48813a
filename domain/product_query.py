"""What a message asks of the products, as a query for the catalogue and as what a product must be."""

from dataclasses import dataclass, replace

from domain.product_cues import Kind
from domain.product_lexicon import Wish
from domain.product_words import forms, near
from domain.products import Product, ProductQuery, Sort

ALL = 100  # products from which counts and values are taken


@dataclass(frozen=True, slots=True)
class Reading:
    """A message read for products.

    `query`: what a catalogue can be asked at once; `wishes`: values, some of several attributes; `words`: what else
    is said of the product, in the form that is compared, and as `said`. `ids`: what may be products' ids. `attribute`:
    whose values are asked for. `sides`: what is compared. `refers`: the place, in the last answer, of a product that
    the message speaks of without naming it; -1 is the last. `cheaper`: than what was shown. `before`: the reading that
    a follow-up goes on from.
    """

    kind: Kind
    text: str
    category: str | None = None
    wishes: tuple[Wish, ...] = ()
    words: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    attribute: str | None = None
    sides: tuple["Reading", ...] = ()
    refers: int | None = None
    cheaper: bool = False
    bounds: tuple[ProductQuery, ...] = ()
    in_stock: bool | None = None
    before: "Reading | None" = None

    @property
    def follows(self) -> bool:
        """Whether it is a follow-up that names no product itself."""
        return self.before is not None and not (self.ids or self.sides)

    @property
    def names_products(self) -> bool:
        """Whether it says which products it is about."""
        return bool(self.category or self.wishes or self.words or self.ids or self.sides)

    @property
    def query(self) -> ProductQuery:
        """As much of it as one query says."""
        bound = self.bounds[0] if self.bounds else ProductQuery()
        pushed = {
            attribute: values
            for wish in self.wishes
            if len(wish.values) == 1 and not wish.negated
            for attribute, values in wish.values.items()
        }
        every = self.every_variant or len(pushed) < len(self.wishes)
        sort: Sort = "title" if every or not self.words else "relevance"
        if self.kind in ("cheapest", "dearest"):
            sort = "price" if self.kind == "cheapest" else "-price"
        return replace(
            bound,
            text=" ".join(self.said),
            category=self.category,
            attributes=pushed,
            in_stock=self.in_stock,
            sort=sort,
            limit=ALL if (every and sort != "price" and sort != "-price") or len(pushed) < len(self.wishes) else 20,
        )

    @property
    def every_variant(self) -> bool:
        """Whether one variant of each article is too little to answer from."""
        return self.kind in ("count", "values", "stock", "price", "cheapest", "dearest")

    def fits(self, product: Product) -> bool:
        """Whether a product is what was asked for, as far as its row says."""
        return (
            (self.category is None or _belongs(product.category, self.category))
            and all(granted(wish, product) for wish in self.wishes)
            and self._within(product)
            and (self.in_stock is None or product.in_stock is self.in_stock)
            and (bool(self.category or self.wishes) or not self.words or 2 * self.covered(product) >= len(self.words))
        )

    def covered(self, product: Product) -> int:
        """How many of the message's other words its row has."""
        if not self.words:
            return 0
        told = " ".join(
            (product.title, product.category or "", product.description or "", *product.attributes.values())
        )
        known = set(forms(told))
        return sum(word in known or any(near(word, one) for one in known) for word in self.words)

    def met(self, product: Product) -> int:
        """How many of the wishes it grants; a price within the bounds counts as one."""
        return sum(granted(wish, product) for wish in self.wishes) + (bool(self.bounds) and self._within(product))

    def lacks(self, product: Product) -> list[str]:
        """What of the wishes it does not grant, in the user's words."""
        missing = [wish.said for wish in self.wishes if not granted(wish, product)]
        return missing + ([] if self._within(product) else ["the price"])

    def _within(self, product: Product) -> bool:
        if not self.bounds:
            return True
        bound, price = self.bounds[0], product.price
        return (
            price is not None
            and (bound.currency is None or product.currency in (None, bound.currency))
            and (bound.min_price is None or price >= bound.min_price)
            and (bound.max_price is None or price <= bound.max_price)
        )


def _belongs(category: str | None, to: str) -> bool:
    return category is not None and (category == to or category.startswith((f"{to} >", f"{to}>", f"{to}/")))


def granted(wish: Wish, product: Product) -> bool:
    has = any(product.attributes.get(attribute) in values for attribute, values in wish.values.items())
    return has != wish.negated
