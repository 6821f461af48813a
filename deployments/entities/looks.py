"""Colours and sizes."""

from collections.abc import Sequence
from functools import cache

from deployments.entities.candidates import Candidate
from deployments.entities.gazetteer import Gazetteer
from deployments.entities.regular import built_in, spans
from deployments.entities.words import Word
from domain.slots import SlotValue

_PLAIN_TEXT = (
    "amber apricot aqua azure beige black blue bronze brown burgundy charcoal coral cream crimson cyan emerald "
    "fuchsia gold green indigo ivory khaki lavender lilac lime magenta maroon mauve mint mustard navy ochre olive "
    "orange peach pink plum purple red rose ruby rust salmon sand sapphire scarlet silver tan taupe teal terracotta "
    "turquoise violet white yellow"
)
_PLAIN = _PLAIN_TEXT.split()
_SHADED = ["blue", "brown", "green", "orange", "pink", "purple", "red", "yellow"]
_SYNONYMS = {
    "grey": ["gray"],
    "multicolour": ["multicolor", "multicoloured", "multicolored", "multi-colour", "multi-color"],
    "navy": ["navy blue"],
    "rose gold": [],
    "off-white": ["off white"],
    "royal blue": [],
    "sky blue": [],
    "baby blue": [],
    "hot pink": [],
    "black and white": [],
    "light grey": ["light gray", "pale grey", "pale gray"],
    "dark grey": ["dark gray", "anthracite"],
}
_VALUES = [SlotValue(value=name, synonyms=_SYNONYMS.get(name, [])) for name in (*_SYNONYMS, *_PLAIN)] + [
    SlotValue(value=f"{shade} {name}") for shade in ("light", "dark", "bright", "pale") for name in _SHADED
]

_LETTERS = r"(?:[2-6]?xs|[2-6]?xl|x{2,4}[sl]|small|medium|large|extra[ -](?:small|large)|extra[ -]extra[ -]large)"
_SIZE = built_in(rf"size\s?(?:is\s|:\s?)?((?:uk|us|eu)?\s?\d{{1,3}}(?:[.,/]\d{{1,2}})?|{_LETTERS}|s|m|l)")
_LETTERED = built_in(_LETTERS)
_REGIONAL = built_in(r"(?:uk|us|eu)\s?\d{1,2}(?:[.,]5)?")
_MEASURED = built_in(
    r"\d{1,5}(?:[.,]\d{1,2})?(?:\s?[x×]\s?\d{1,5}(?:[.,]\d{1,2})?){0,2}[ -]?"
    r"(?:mm|cm|metres?|meters?|inch(?:es)?|ft|feet|ml|cl|litres?|liters?|oz|kg|grams?|lbs?|gb|tb|mb)|\d{1,3}(?:\.\d)?\""
)
_NAMES = {
    "small": "S",
    "medium": "M",
    "large": "L",
    "extra small": "XS",
    "extra large": "XL",
    "extra extra large": "XXL",
}


@cache
def _colours(fuzzy: bool) -> Gazetteer:
    return Gazetteer(_VALUES, fuzzy)


def colours(text: str, said: Sequence[Word], fuzzy: bool) -> list[Candidate]:
    """The colour's name in British spelling."""
    return _colours(fuzzy).found(text, said)


def sizes(text: str) -> list[Candidate]:
    """Clothes' ("M", "EU 42"), measures ("15 inch") and capacities ("128 GB"), in capitals and evenly spaced."""
    candidates = []
    for pattern, score in ((_SIZE, 1.0), (_LETTERED, 0.9), (_REGIONAL, 0.95), (_MEASURED, 0.95)):
        for start, end in spans(pattern, text):
            plain = " ".join(text[start:end].lower().replace("-", " ").split())
            candidates.append(Candidate(start, end, _NAMES.get(plain, text[start:end].upper()), score))
    return candidates
