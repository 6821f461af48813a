"""Lists of names from a tenant's catalogue: its products, categories, and what their attributes can be."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from deployments.entities.gazetteer import usable
from deployments.entities.words import forms
from domain.slots import MOST_VALUES, SlotValue

PRODUCTS, CATEGORIES = "products", "categories"
MOST_ATTRIBUTES = 50
_SPLIT = re.compile(r"\s+[-–—|/]\s+|[,(:|;]")


def lists(products: Iterable[Mapping[str, Any]]) -> dict[str, list[SlotValue]]:
    """`products` (by title), `categories`, and a list for each attribute, named like it: what Gazetteers are made of.

    Each product: `title`, and perhaps `category` and `attributes` (name to a text or several). People seldom say what
    follows a dash, comma or bracket in a title: what stands before it is a synonym, or, where several products share
    it, a value of its own. Names of more than 200 characters are left out, and so is what goes over 50,000 a list.
    """
    titles: dict[str, str] = {}
    others: dict[str, dict[str, None]] = {CATEGORIES: {}}
    for product in products:
        title = str(product["title"]).strip()
        titles.setdefault(title, _short(title))
        if category := product.get("category"):
            others[CATEGORIES][str(category).strip()] = None
        for name, said in (product.get("attributes") or {}).items():
            if name in others or len(others) <= MOST_ATTRIBUTES:
                values = said if isinstance(said, list | tuple) else [said]
                others.setdefault(name, {}).update((value.strip(), None) for value in values if isinstance(value, str))
    named = {PRODUCTS: _titled(titles)} | {
        name: [SlotValue(value=v) for v in o if usable(v)] for name, o in others.items()
    }
    return {name: values[:MOST_VALUES] for name, values in named.items() if values}


def _titled(titles: Mapping[str, str]) -> list[SlotValue]:
    shared: dict[str, int] = {}
    for short in titles.values():
        shared[short] = shared.get(short, 0) + 1
    values = []
    for title, short in titles.items():
        own = [short] if short != title and shared[short] == 1 and short not in titles and usable(short) else []
        if usable(title):
            values.append(SlotValue(value=title, synonyms=own))
        elif own:
            values.append(SlotValue(value=short))
    families = (short for short, count in shared.items() if count > 1 and short not in titles and usable(short))
    return [*values, *(SlotValue(value=short) for short in families)]


def _short(title: str) -> str:
    """What stands before the first sign that divides a title; the title where that is too little to go by."""
    short = _SPLIT.split(title, maxsplit=1)[0].strip()
    return short if len(forms(short)) > 1 or len(short) >= 8 else title
