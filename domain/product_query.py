"""What a message asks of the products: a query for the catalogue, and which kind of answer it wants."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from domain.product_lexicon import Lexicon, Wish
from domain.product_prices import amounts, bounds
from domain.product_words import Word, filler, forms, near, words
from domain.products import Product, ProductQuery, Sort

Kind = Literal["list", "have", "stock", "price", "count", "cheapest", "dearest", "compare", "values", "details"]
"""`have`: whether there is one. `values`: what an attribute can be. The others are what they are called."""

MOST_CHARACTERS = 2_000  # of a message that are read
MOST_TURNS = 8  # messages back in which a follow-up finds what it is about
ALL = 100  # products from which counts and values are taken
_ORDINALS = {
    **{"first": 0, "1st": 0, "second": 1, "2nd": 1, "third": 2, "3rd": 2, "fourth": 3, "4th": 3, "fifth": 4, "5th": 4},
    "last": -1,
}
_ORDINAL = re.compile(
    r"\bthe\s+(first|second|third|fourth|fifth|last|1st|2nd|3rd|4th|5th)(?:\s+(?:one|product|item|"
    r"option))?\b(?!\s+(?:time|day|order))|"
    r"\b(?:number|option|no\.|#)\s*([1-9])\b",
    re.IGNORECASE,
)
_THAT = re.compile(r"\b(?:it|its|that one|this one|that|this|them|those|these|they)\b", re.IGNORECASE)
_FOLLOWS = re.compile(
    r"^\W*(?:(?:ok(?:ay)?|thanks?|great|nice|hm+|well|and|but|or|so|then|also)\b[\s,.!]*)*"
    r"(?:and\b|what about|how about|or\b|also\b|any(?:thing)?\s+(?:cheaper|else|other|in)\b|do you have (?:it|"
    r"that|this|them|one|any)\b|"
    r"(?:is|are|does|do)\s+(?:it|that|this|they|those|these|there)\b|is there (?:one|any)\b|"
    r"(?:in|with|without|under|below|over|only|just)\b|how much (?:is|are|does|do)\s+(?:it|that|this|they|the)\b|"
    r"(?:what|which)\s+\w+\s+(?:are there|do you have|do they|does it|are they|is it|come)\b|(?:cheaper|a cheaper|"
    r"the cheapest|something cheaper)\b|same\b)",
    re.IGNORECASE,
)
_CHEAPER = re.compile(r"\b(?:cheaper|less expensive|more affordable)\b(?!\s+than)", re.IGNORECASE)
_ORDERS = re.compile(
    r"\b(?:order|invoice|ticket|tracking|parcel|shipment)s?\s*(?:number|no\.?|"
    r"id)?\s*[:#]?\s*#?(?=[\w-]*\d)[\w-]{4,}|#\s?[A-Za-z]?\d{3,}\w*",
    re.IGNORECASE,
)
_ID = re.compile(
    r"(?<![\w-])(?:\d{6,}|(?=[\w-]*[A-Za-z])(?=(?:[A-Za-z_-]*\d){3})(?!\d+-?[A-Za-z]+\b)[A-Za-z0-9]+(?:[-_][A-Za-z0-9]+)*)(?![\w-])"
)
_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))  # type: ignore[misc]
    for kind, pattern in (
        (
            "compare",
            r"\bcompar(?:e|ed|ison)\b|\bvs\.?(?!\w)|\bversus\b|\bdifferences?\s+between\b|"
            r"\bwhich\s+(?:one\s+)?(?:is|costs?)\s+(?:\w+\s+)?(?:cheaper|less|more|dearer|better)\b|"
            r"\b(?:cheaper|dearer|more expensive)[,:]?\s+(?:the\b|an?\b).*\bor\b",
        ),
        ("stock", r"\bhow many\b.*\b(?:left|pieces|units)\b|\bleft in stock\b"),
        ("count", r"\bhow many\b|\bnumber of\b"),
        ("cheapest", r"\b(?:cheapest|lowest[- ]price[d]?|lowest price|least expensive|most affordable)\b"),
        ("dearest", r"\b(?:most expensive|priciest|dearest|highest[- ]priced?|highest price)\b"),
        (
            "price",
            r"\bhow much\b|\bprices?\b|\bcosts?\b|\bpriced\b|\bwhat do(?:es)?\s.*\s(?:cost|go for)\b",
        ),
        (
            "stock",
            r"^\W*(?:(?:hi|hello|hey)\W+)?(?:is|are|do you (?:still )?have|have you(?: still)? got|you got|"
            r"check (?:if|whether))\b.*"
            r"\b(?:in stock|available|sold out|out of stock)\b|\bavailability\b|\bsold out\b",
        ),
        ("details", r"\b(?:tell me (?:more )?about|describe|details|more about|information (?:on|about)|info on)\b"),
        (
            "have",
            r"\b(?:do|did|have|can|could) (?:you|we|i)\b.{0,20}?\b(?:have|sell|carry|stock|got|get|offer)\b|"
            r"\bis there\b|\bare there\b|"
            r"\bgot any\b|\bcan i get\b|\bdoes .* come in\b",
        ),
        (
            "list",
            r"\b(?:show|find|list|recommend|suggest|looking for|search(?:ing)? for|want|need|buy|which|what)\b|"
            r"\bin stock\b|\bavailable\b",
        ),
    )
)
_SHOPPING = re.compile(
    r"\b(?:in stock|do you (?:have|sell|carry|stock)|have you got|looking for|shopping for|buy|cheap(?:er|est)?|"
    r"most expensive|"
    r"how much (?:is|are|does|do)|price|cost|recommend|show me|available|products?|compare|what (?:colou?rs|"
    r"sizes)|size|colou?r)\b",
    re.IGNORECASE,
)
_OTHER_MATTER = re.compile(
    r"\b(?:my|an?|the|this)\s+(?:\w+\s+)?(?:order|parcel|package|delivery|shipment|refund|return|payment|account|"
    r"invoice|password|subscription)s?\b|"
    r"\b(?:refund|cancel|track|return policy|deliver(?:y|ed)?|shipping|password|log ?in|sign in|opening hours)\b",
    re.IGNORECASE,
)
_IN_STOCK = re.compile(r"\b(?:in stock|available|at hand)\b", re.IGNORECASE)
_NOT_IN_STOCK = re.compile(r"\b(?:out of stock|sold out|not (?:in stock|available)|unavailable)\b", re.IGNORECASE)
_VALUES = re.compile(
    r"\b(?:what|which)\s+((?:\w+\s+){0,2}?\w+)\s+(?:do(?:es)?|are|is|can|options?|have|come|of|for|there|you)\b|"
    r"\b(?:what|which)\b.*\b(made of|made from)\b|\b(?:list|all|available)\s+(?:the\s+)?((?:\w+\s+)?\w+s)\b",
    re.IGNORECASE,
)
_PARTS = re.compile(r"\s+(?:and|or|vs\.?|versus|with|to)\s+|\s*,\s*(?:or|and)?\s*|\s*[/]\s+", re.IGNORECASE)


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


def plainly(text: str) -> bool:
    """Whether a text is about products by its words alone, for whom no classifier says it."""
    text = text[:MOST_CHARACTERS]
    return not other_matter(text) and bool(_SHOPPING.search(text) or amounts(text))


def other_matter(text: str) -> bool:
    """Whether a text is about an order, an account, a parcel: whatever it names, it looks for no product."""
    return _OTHER_MATTER.search(text[:MOST_CHARACTERS]) is not None


def follows(text: str) -> bool:
    """Whether a text may go on from what was said of products before."""
    text = text[:MOST_CHARACTERS]
    goes_on = _FOLLOWS.match(text) or _ORDINAL.search(text) or _CHEAPER.search(text)
    return not other_matter(text) and len(text) < 200 and bool(goes_on)


def read(text: str, lexicon: Lexicon, earlier: Sequence[str] = ()) -> Reading:
    """What `text` asks for. `earlier`: the user's messages before it, the oldest first, for a follow-up ("and in
    blue?", "the second one"): read again, they say what it is about, whoever reads them."""
    before: Reading | None = None
    for said in earlier[-MOST_TURNS:] if follows(text) or _THAT.search(text) else ():
        if plainly(said) or follows(said) or _alone(said[:MOST_CHARACTERS], lexicon).category:
            before = _read(said, lexicon, before)
    return _read(text, lexicon, before)


def _read(text: str, lexicon: Lexicon, before: Reading | None) -> Reading:
    own = _alone(text[:MOST_CHARACTERS], lexicon)
    return own if before is None else _going_on(own, before)


def _alone(text: str, lexicon: Lexicon) -> Reading:
    plain = _ORDERS.sub(" , ", text)
    within = bounds(_ORDINAL.sub(" ", plain))
    ids = tuple(dict.fromkeys(_ID.findall(within.rest)))
    kind = _kind(plain)
    if kind == "compare" and (sides := _sides(_ID.sub(" ", plain), lexicon)):
        return Reading(kind, text, sides=sides, ids=ids)
    asked = _asked_attribute(plain, lexicon) if kind in ("list", "have", "stock", "details") else None
    reading = _named(_ID.sub(" , ", within.rest), lexicon)
    bound: tuple[ProductQuery, ...] = ()
    if within.least is not None or within.most is not None:
        currency = within.currency
        bound = (ProductQuery(min_price=within.least, max_price=within.most, currency=currency),)
    ordinal = _ORDINAL.search(plain)
    refers = None
    if ordinal:
        refers = _ORDINALS[ordinal[1].lower()] if ordinal[1] else int(ordinal[2]) - 1
    elif _THAT.search(plain) and not (reading.category or reading.words):
        refers = 0
    if asked is not None:
        kind, reading = "values", _without_attribute(reading, asked, lexicon)
    stocked = None
    if _NOT_IN_STOCK.search(plain) and kind in ("list", "count"):
        stocked = False
    elif _IN_STOCK.search(plain) and kind not in ("stock", "compare", "details", "price", "values"):
        stocked = True
    return replace(
        reading,
        kind=kind,
        text=text,
        ids=ids,
        attribute=asked,
        refers=refers,
        cheaper=bool(_CHEAPER.search(plain)),
        bounds=bound,
        in_stock=stocked,
    )


def _named(text: str, lexicon: Lexicon) -> Reading:
    """Category, values and other words of a text."""
    said = words(text)
    category: str | None = None
    wishes: list[Wish] = []
    taken: set[int] = set()
    attributes = {word for name in lexicon.attributes.values() for word in name}
    for match in lexicon.matches(said):
        if match.category is not None and category is None:
            category = match.category
            taken |= set(range(match.start, match.end))
        elif match.wish is not None and not taken.issuperset(range(match.start, match.end)):
            either = match.start > 0 and said[match.start - 1].form == "or"
            wishes = _joined(wishes, match.wish, either)
            taken |= set(range(match.start, match.end))
            beside = {place for place in (match.start - 2, match.start - 1, match.end, match.end + 1) if place >= 0}
            cues = {word for one in match.wish.values for word in lexicon.attributes[one]}
            taken |= {place for place in beside if place < len(said) and said[place].form in cues}
    rest = [word for place, word in enumerate(said) if place not in taken and _tells(word)]
    if category or wishes:
        rest = [word for word in rest if word.form not in attributes]
    kept = {word.form: word.said for word in reversed(rest)}
    compared = tuple(reversed(kept))
    return Reading("list", text, category, tuple(wishes), compared, tuple(kept[one] for one in compared))


def _tells(word: Word) -> bool:
    return (
        len(word.form) > 1 and not filler(word.form) and word.form[0].isalnum() and word.form.lower() not in _ORDINALS
    )


def _joined(wishes: list[Wish], wish: Wish, either: bool) -> list[Wish]:
    """Several values of the same attributes are one wish: one of them must hold. `either`: "red or grey", which have
    an attribute in common."""
    for place, other in enumerate(wishes):
        common = other.values.keys() & wish.values.keys()
        alike = other.values.keys() == wish.values.keys() or (either and common and place == len(wishes) - 1)
        if alike and other.negated == wish.negated:
            values = {one: tuple(dict.fromkeys((*other.values[one], *wish.values[one]))) for one in sorted(common)}
            joined = Wish(f"{other.said} or {wish.said}", values, wish.negated)
            return [*wishes[:place], joined, *wishes[place + 1 :]]
    return [*wishes, wish]


def _kind(text: str) -> Kind:
    return next((kind for kind, pattern in _KINDS if pattern.search(text)), "list")


def _asked_attribute(text: str, lexicon: Lexicon) -> str | None:
    for match in _VALUES.finditer(text):
        if match[2]:
            made = [one for one, name in lexicon.attributes.items() if "material" in name]
            return next((one for one in made if one == "material"), made[0] if made else None)
        if found := lexicon.attribute(forms(match[1] or match[3] or "")):
            return found
    return None


def _without_attribute(reading: Reading, attribute: str, lexicon: Lexicon) -> Reading:
    name = lexicon.attributes[attribute]
    rest = [pair for pair in zip(reading.words, reading.said, strict=True) if pair[0] not in name]
    return replace(reading, words=tuple(word for word, _ in rest), said=tuple(said for _, said in rest))


def _sides(text: str, lexicon: Lexicon) -> tuple[Reading, ...]:
    """The two things that are compared; what one of them leaves out it has from the other."""
    cleaned = re.sub(
        r"\b(?:compare|which|one|is|are|costs?|the|between|difference|cheaper|dearer|better|less|more|expensive)\b",
        " ",
        text,
        flags=re.IGNORECASE,
    )
    read_parts = [_named(part, lexicon) for part in _PARTS.split(cleaned)]
    parts = [part for part in read_parts if part.names_products]
    if len(parts) < 2:
        return ()
    merged = [parts[0]]
    for part in parts[1:]:  # "in black and size M": more of the same thing
        last = merged[-1]
        if len(parts) > 2 and not part.category and not part.words and last.category and not _same(last, part):
            merged[-1] = replace(last, wishes=(*last.wishes, *part.wishes))
        else:
            merged.append(part)
    named = next((part for part in reversed(merged) if part.category or part.words), merged[-1])
    whole = [
        part
        if part.category or part.words
        else replace(part, category=named.category, words=named.words, said=named.said)
        for part in merged[:2]
    ]
    return tuple(replace(part, kind="price") for part in whole) if len(whole) == 2 else ()


def _same(one: Reading, other: Reading) -> bool:
    attributes = {attribute for wish in one.wishes for attribute in wish.values}
    return any(attribute in attributes for wish in other.wishes for attribute in wish.values)


def _going_on(own: Reading, before: Reading) -> Reading:
    """A follow-up: what it says anew, and for the rest what was said before."""
    if own.category or own.ids or own.sides or (own.words and own.refers is None and not own.wishes):
        return own
    if own.refers is not None or before.refers is not None:  # of the product that was spoken of
        kind = (
            before.kind if own.kind == "list" and own.wishes and before.kind in ("price", "stock", "have") else own.kind
        )
        return replace(own, kind=kind, refers=own.refers or 0, before=before)
    names = {attribute for wish in own.wishes for attribute in wish.values} | {own.attribute}
    kept = tuple(wish for wish in before.wishes if not names & wish.values.keys())
    kind = own.kind
    if kind == "list" and before.kind not in ("compare", "values", "count"):
        kind = before.kind
    return replace(
        own,
        kind=kind,
        category=before.category,
        words=own.words or before.words,
        said=own.said or before.said,
        wishes=(*kept, *own.wishes),
        bounds=own.bounds or before.bounds,
        in_stock=own.in_stock if own.in_stock is not None else before.in_stock,
        before=before,
    )
