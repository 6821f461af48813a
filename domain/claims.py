"""Checks what an answer claims of products against the catalogue's rows: prices, stock, and names.

By rules alone, in time that grows with the text and the number of rows; nothing is asked. A claim that no row supports
is wrong or made up; what cannot be told for certain counts as supported.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from domain.product_mentions import Names, Passage
from domain.product_prices import Money, amounts, told
from domain.products import Product

MOST_CHARACTERS = 20_000  # of an answer that are checked
MOST_TOLD = 5  # claims that a correction puts right
CORRECTION = "\n\nCorrection from the catalogue: "
_HEDGED = re.compile(
    r"\b(?:under|over|below|above|beneath|less than|more than|cheaper than|up to|at least|at most|within|between|"
    r"saves?|saving|discounts?|shipping|delivery|difference|cheaper by|total(?:s|ling)?|together|sum|budget|coupon|"
    r"voucher|instead of|not|was)\b(?:\s+(?:of|is|are|comes to|costs?|you|a))*[\s:]*$|\bbetween\b[^.\n]*\band\s*$",
    re.IGNORECASE,
)
_RELATIVE = re.compile(
    r"^\s*(?:off|less|cheaper|more|dearer|discount|difference|in total|altogether|shipping|or (?:less|more|under|"
    r"over)|budget)\b",
    re.IGNORECASE,
)
_ABOUT = re.compile(r"\b(?:about|around|roughly|approximately|approx\.?|some|nearly|almost|ca\.)\s*$", re.IGNORECASE)
_GONE = re.compile(
    r"\b(?:out of stock|sold out|unavailable|(?:not|no longer|isn't|aren't|isn’t|aren’t)\s+(?:currently\s+|"
    r"now\s+)?(?:in stock|available))\b",
    re.IGNORECASE,
)
_THERE = re.compile(
    r"\bin stock\b|\bavailable\b(?!\s+(?:in|as|at|for|from|with|options?|sizes?|colou?rs?)\b)", re.IGNORECASE
)
_COUNTED = re.compile(
    r"\b(?:only\s+)?(\d{1,6})\s+(?:(?:pieces?|units?|items?)\s+)?(?:left|remaining|in stock)\b|\bstock:\s*(\d{1,6})\b",
    re.IGNORECASE,
)
_CONDITIONAL = re.compile(
    r"\b(?:if|whether|let me know|would you|shall i|should i|which are|all of them|of them|\d+ of)\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Wrong:
    """A claim that no row supports. `said`: in the answer's words. `right`: what the rows say, in a sentence."""

    kind: Literal["price", "stock", "name"]
    said: str
    right: str
    products: tuple[str, ...] = ()

    def told(self) -> dict[str, Any]:
        return {"kind": self.kind, "said": self.said, "right": self.right, "products": list(self.products)}


@dataclass(frozen=True, slots=True)
class Checked:
    """`named`: the products that the answer names, in its order. `claims`: how many were looked at."""

    named: tuple[Product, ...]
    claims: int
    wrong: tuple[Wrong, ...] = ()

    @property
    def correction(self) -> str:
        """What to add to the answer; empty where nothing is wrong."""
        if not self.wrong:
            return ""
        return CORRECTION + " ".join(dict.fromkeys(one.right for one in self.wrong[:MOST_TOLD]))


def named(text: str, products: Sequence[Product]) -> tuple[Product, ...]:
    """The products that a text names, in its order."""
    return Names(products).named(text[:MOST_CHARACTERS]) if products and text else ()


def check(answer: str, products: Sequence[Product], question: str = "") -> Checked:
    """`products`: those that the answer could be given from. Amounts that the question names are no claims."""
    text = answer[:MOST_CHARACTERS].partition(CORRECTION)[0]
    names = Names(products)
    asked = {said.amount for said in amounts(question)}
    asked |= {Decimal(number) for number in re.findall(r"\b\d{1,7}\b", question)}
    claims, wrong = 0, []
    passages = names.passages(text)
    for passage in passages:
        prices = [said for said in passage.money if said.amount not in asked and not _hedged(passage, said)]
        stock = _stock(passage)
        claims += len(prices) + (stock is not None) + (passage.phrase is not None and bool(prices))
        if passage.phrase is not None:
            if passage.money or stock is not None:
                said = passage.phrase
                wrong.append(Wrong("name", said, f"“{said}” was not found in the catalogue."))
            continue
        wrong += [_wrong_price(passage, said) for said in prices if not _priced(passage, said, products)]
        if stock is not None and (problem := _wrong_stock(passage, stock)):
            wrong.append(problem)
    return Checked(names.told_of(passages), claims, tuple(dict.fromkeys(wrong)))


def _hedged(passage: Passage, said: Money) -> bool:
    """Whether the amount is a bound, a difference or a sum: no product's price."""
    before, after = passage.text[max(0, said.start - 40) : said.start], passage.text[said.end :]
    return bool(_HEDGED.search(before) or _RELATIVE.match(after))


def _priced(passage: Passage, said: Money, products: Sequence[Product]) -> bool:
    about = passage.about or products
    prices = [one.price for one in about if one.price is not None and _same_currency(one.currency, said.currency)]
    if passage.about and not prices and not any(one.price is not None for one in about):
        return True  # nobody knows its price
    if _ABOUT.search(passage.text[: said.start]):
        return any(abs(price - said.amount) <= price / 20 for price in prices)
    many = {int(number) for number in re.findall(r"\b[2-9]\b|\b10\b", passage.text)}
    return any(said.amount == price or any(said.amount == price * count for count in many) for price in prices)


def _same_currency(one: str | None, other: str | None) -> bool:
    return one is None or other is None or one == other


def _wrong_price(passage: Passage, said: Money) -> Wrong:
    words = passage.text[said.start : said.end]
    priced = [one for one in passage.about if one.price is not None]
    if not priced:
        return Wrong(
            "price", words, f"the catalogue has no product here that costs {told(said.amount, said.currency)}."
        )
    low = min(priced, key=lambda one: (one.price or 0, one.id))
    high = max(priced, key=lambda one: (one.price or 0, one.id))
    assert low.price is not None and high.price is not None
    price = told(low.price, low.currency)
    if high.price != low.price:
        price = f"between {told(low.price, low.currency)} and {told(high.price, high.currency)}"
    ids = tuple(one.id for one in priced)
    return Wrong("price", words, f"{_label(priced)} costs {price}, not {told(said.amount, said.currency)}.", ids)


def _stock(passage: Passage) -> tuple[bool, int | None, str] | None:
    """Whether it says that the product is there, how many of it, and its words."""
    text = passage.text
    if text.rstrip().endswith("?") or _CONDITIONAL.search(text):
        return None
    gone, there, counted = _GONE.search(text), None, _COUNTED.search(text)
    if gone:
        there = _THERE.search(_GONE.sub(" ", text))
        return None if there or counted else (False, None, gone.group())
    if counted:
        return True, int(counted[1] or counted[2]), counted.group()
    there = _THERE.search(text)
    return (True, None, there.group()) if there else None


def _wrong_stock(passage: Passage, claim: tuple[bool, int | None, str]) -> Wrong | None:
    there, count, words = claim
    about = passage.about
    if not about or any(_stands(one, there, count) for one in about):
        return None
    ids, label, one = tuple(product.id for product in about), _label(about), about[0]
    if not one.in_stock:
        return Wrong("stock", words, f"{label} is out of stock.", ids)
    left = f" ({one.stock} left)" if one.stock is not None and len(about) == 1 else ""
    return Wrong("stock", words, f"{label} is in stock{left}.", ids)


def _stands(product: Product, there: bool, count: int | None) -> bool:
    if product.in_stock is None:
        return True
    return product.in_stock is there and (count is None or product.stock is None or product.stock == count)


def _label(about: Sequence[Product]) -> str:
    """What a correction calls them: the title, and the values that they share."""
    first = about[0]
    shared = [
        value for name, value in first.attributes.items() if all(one.attributes.get(name) == value for one in about)
    ]
    details = f" ({', '.join(shared)})" if shared and len(first.attributes) > 0 and len(shared) <= 6 else ""
    return f"{first.title}{details}"
