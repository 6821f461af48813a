"""Reads a message for what it asks of the products, with the words of their catalogue."""

import re
from collections.abc import Sequence
from dataclasses import replace

from domain.product_cues import (
    CHEAPER,
    ID,
    IN_STOCK,
    MOST_CHARACTERS,
    NOT_IN_STOCK,
    ORDERS,
    ORDINAL,
    ORDINALS,
    PARTS,
    THAT,
    VALUES,
    follows,
    kind_of,
    plainly,
)
from domain.product_lexicon import Lexicon, Wish
from domain.product_prices import bounds
from domain.product_query import Reading
from domain.product_words import Word, filler, forms, tidied, words
from domain.products import ProductQuery

MOST_TURNS = 8  # messages back in which a follow-up finds what it is about


def read(text: str, lexicon: Lexicon, earlier: Sequence[str] = ()) -> Reading:
    """What `text` asks for. `earlier`: the user's messages before it, the oldest first, for a follow-up ("and in
    blue?", "the second one"): read again, they say what it is about, whoever reads them."""
    before: Reading | None = None
    for said in earlier[-MOST_TURNS:] if follows(text) or THAT.search(text) else ():
        if plainly(said) or follows(said) or _alone(said, lexicon).category:
            before = _read(said, lexicon, before)
    return _read(text, lexicon, before)


def _read(text: str, lexicon: Lexicon, before: Reading | None) -> Reading:
    own = _alone(text, lexicon)
    return own if before is None else _going_on(own, before)


def _alone(text: str, lexicon: Lexicon) -> Reading:
    text = tidied(text[:MOST_CHARACTERS])
    plain = ORDERS.sub(" , ", text)
    within = bounds(ORDINAL.sub(" ", plain))
    ids = tuple(dict.fromkeys(ID.findall(within.rest)))
    kind = kind_of(plain)
    if kind == "compare" and (sides := _sides(ID.sub(" ", plain), lexicon)):
        return Reading(kind, text, sides=sides, ids=ids)
    asked = _asked_attribute(plain, lexicon) if kind in ("list", "have", "stock", "details") else None
    reading = _named(ID.sub(" , ", within.rest), lexicon)
    bound: tuple[ProductQuery, ...] = ()
    if within.least is not None or within.most is not None:
        currency = within.currency
        bound = (ProductQuery(min_price=within.least, max_price=within.most, currency=currency),)
    ordinal = ORDINAL.search(plain)
    refers = None
    if ordinal:
        refers = ORDINALS[ordinal[1].lower()] if ordinal[1] else int(ordinal[2]) - 1
    elif THAT.search(plain) and not (reading.category or reading.words):
        refers = 0
    if asked is not None:
        kind, reading = "values", _without_attribute(reading, asked, lexicon)
    stocked = None
    if NOT_IN_STOCK.search(plain) and kind in ("list", "count"):
        stocked = False
    elif IN_STOCK.search(plain) and kind not in ("stock", "compare", "details", "price", "values"):
        stocked = True
    return replace(
        reading,
        kind=kind,
        text=text,
        ids=ids,
        attribute=asked,
        refers=refers,
        cheaper=bool(CHEAPER.search(plain)),
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
    return len(word.form) > 1 and not filler(word.form) and word.form[0].isalnum() and word.form.lower() not in ORDINALS


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


def _asked_attribute(text: str, lexicon: Lexicon) -> str | None:
    for match in VALUES.finditer(text):
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
    read_parts = [_named(part, lexicon) for part in PARTS.split(tidied(cleaned))]
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
