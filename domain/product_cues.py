"""Words that tell what a message wants of products: which kind of answer, and whether it speaks of any at all."""

import re
from typing import Literal

from domain.product_prices import amounts

Kind = Literal["list", "have", "stock", "price", "count", "cheapest", "dearest", "compare", "values", "details"]
"""`have`: whether there is one. `values`: what an attribute can be. The others are what they are called."""

MOST_CHARACTERS = 2_000  # of a message that are read
ORDINALS = {
    **{"first": 0, "1st": 0, "second": 1, "2nd": 1, "third": 2, "3rd": 2, "fourth": 3, "4th": 3, "fifth": 4, "5th": 4},
    "last": -1,
}
ORDINAL = re.compile(
    r"\bthe\s+(first|second|third|fourth|fifth|last|1st|2nd|3rd|4th|5th)(?:\s+(?:one|product|item|"
    r"option))?\b(?!\s+(?:time|day|order))|"
    r"\b(?:number|option|no\.|#)\s*([1-9])\b",
    re.IGNORECASE,
)
THAT = re.compile(r"\b(?:it|its|that one|this one|that|this|them|those|these|they)\b", re.IGNORECASE)
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
CHEAPER = re.compile(r"\b(?:cheaper|less expensive|more affordable)\b(?!\s+than)", re.IGNORECASE)
ORDERS = re.compile(
    r"\b(?:order|invoice|ticket|tracking|parcel|shipment)s?\s*(?:number|no\.?|"
    r"id)?\s*[:#]?\s*#?(?=[\w-]*\d)[\w-]{4,}|#\s?[A-Za-z]?\d{3,}\w*",
    re.IGNORECASE,
)
ID = re.compile(
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
IN_STOCK = re.compile(r"\b(?:in stock|available|at hand)\b", re.IGNORECASE)
NOT_IN_STOCK = re.compile(r"\b(?:out of stock|sold out|not (?:in stock|available)|unavailable)\b", re.IGNORECASE)
VALUES = re.compile(
    r"\b(?:what|which)\s+((?:\w+\s+){0,2}?\w+)\s+(?:do(?:es)?|are|is|can|options?|have|come|of|for|there|you)\b|"
    r"\b(?:what|which)\b.*\b(made of|made from)\b|\b(?:list|all|available)\s+(?:the\s+)?((?:\w+\s+)?\w+s)\b",
    re.IGNORECASE,
)
PARTS = re.compile(r"\s+(?:and|or|vs\.?|versus|with|to)\s+|\s*,\s*(?:or|and)?\s*|\s*[/]\s+", re.IGNORECASE)


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
    goes_on = _FOLLOWS.match(text) or ORDINAL.search(text) or CHEAPER.search(text)
    return not other_matter(text) and len(text) < 200 and bool(goes_on)


def kind_of(text: str) -> Kind:
    """Which kind of answer a text wants."""
    return next((kind for kind, pattern in _KINDS if pattern.search(text)), "list")
