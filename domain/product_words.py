"""Words of a text about products, in the form in which they are compared: one for singular, plural and spelling."""

import re
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import combining, normalize

_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]-(?=[^\W\d_]{2})[^\W\d_]+|[^\W\d_]+|[%\"]")
_SAME = {
    "aluminum": "aluminium",
    "armour": "armor",
    "centimeter": "cm",
    "centimetre": "cm",
    "color": "colour",
    "coloured": "colour",
    "colored": "colour",
    "fiber": "fibre",
    "feet": "ft",
    "foot": "ft",
    "gig": "gb",
    "gigabyte": "gb",
    "gray": "grey",
    "hr": "hour",
    "jewelry": "jewellery",
    "kilo": "kg",
    "bookshelves": "bookshelf",
    "knives": "knife",
    "liter": "l",
    "litre": "l",
    "mice": "mouse",
    "pound": "lb",
    "scarves": "scarf",
    "shelves": "shelf",
    "polarised": "polarized",
    "resistance": "resistant",
    "tee": "tshirt",
    "terabyte": "tb",
    "watt": "w",
    '"': "inch",
}
_FILLER_TEXT = """
    a about actually affordable all also am among an and any anyone anything approximately are around as at
    availability available be been being below best better between bit both brand budget but buy by called can
    carry cheap cheaper cheapest check come compare compared comparison cost costing costs could currently d deal
    describe detail details did difference different do does dollar else eur euro ever exist expensive find first
    for from gbp get gift give go going good got great hand has have having hello help her here hey hi highest him
    his how i if in info information instock interested into is it item just keep kind know least left less let
    like list ll look looking lot lowest m made make many matter max maximum may maybe me might model moment more
    most much my named need new nice no not now of offer ok okay on one only option or order other our out over
    own per perhaps piece please possible prefer present price priced pricing product quite range re really
    recommend right roughly s second see sell sells set ship shipped shop should show so sold some somebody
    something somewhere sort still stock stocked store such suggest t tell than thank thanks that the their them
    then there these they thing this those to today too total type under up us usd variant variety ve version
    versus very vs want was we well were what when where which who will wish with within without would yes you
    your
"""
_FILLER = frozenset(_FILLER_TEXT.split())


@dataclass(frozen=True, slots=True)
class Word:
    """`form`: how it is compared. `said`: as written."""

    form: str
    said: str


def tidied(text: str) -> str:
    """Its lines without runs of blanks and without empty lines: patterns that look for blanks take a time that grows
    with the square or the cube of such a run."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


def words(text: str) -> list[Word]:
    """In order. A letter before a hyphen is part of the word behind it (T-shirt); letters and digits are apart."""
    folded = text if text.isascii() else "".join(c for c in normalize("NFKD", text) if not combining(c))
    found = [Word(form(match.group()), match.group()) for match in _TOKEN.finditer(folded)]
    return _without_gaps(found)


def forms(text: str) -> tuple[str, ...]:
    return tuple(word.form for word in words(text))


@lru_cache(maxsize=50_000)
def form(said: str) -> str:
    """The form that equal words share: "T-shirts", "t-shirt" and "Tshirt" have one."""
    low = said.casefold().replace("-", "")
    if low[:1].isdigit():
        return low.replace(",", ".").removesuffix(".0")
    low = _SAME.get(low, low)
    return _SAME.get(one := _singular(low), one)


def filler(form: str) -> bool:
    """Whether the word says nothing of the product that is meant."""
    return form in _FILLER or form in _FILLER_FORMS


def near(one: str, other: str) -> bool:
    """Whether one may be the other misspelt: from five letters on, one wrong, missing, added or exchanged."""
    if one == other:
        return True
    short, long = sorted((one, other), key=len)
    if len(short) < 5 or len(long) - len(short) > 1 or one[0] != other[0] or not (one.isalpha() and other.isalpha()):
        return False
    at = next((place for place, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if len(short) < len(long):
        return short[at:] == long[at + 1 :]
    swapped = short[at : at + 2] == long[at : at + 2][::-1] and short[at + 2 :] == long[at + 2 :]
    return swapped or short[at + 1 :] == long[at + 1 :]


def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return word[:-2]
    return word[:-1]


def _without_gaps(found: list[Word]) -> list[Word]:
    """ "t shirt" as the one word that it is."""
    kept: list[Word] = []
    for word in found:
        if kept and kept[-1].form == "t" and word.form == "shirt":
            kept[-1] = Word("tshirt", f"{kept[-1].said} {word.said}")
        else:
            kept.append(word)
    return kept


_FILLER_FORMS = frozenset(form(word) for word in _FILLER)
