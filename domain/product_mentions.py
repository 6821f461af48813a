"""Which products a text names, sentence by sentence; by title, the values that tell one variant from another, id and
address."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from domain.product_prices import Money, amounts
from domain.product_words import filler, forms, tidied
from domain.products import Product

_SENTENCE = re.compile(r"\n+|(?<=[.!?])(?<!\d\.)\s+(?=[^a-z\s])")
_CLAUSE = re.compile(r"\s*;\s*|,?\s+\b(?:and|while|but|whereas|or)\b\s+|,\s+(?=the\b)", re.IGNORECASE)
_DIVIDED = re.compile(r"\s+[-–—|/]\s+|[,(:|;]")
_PHRASE = re.compile(
    r"\*\*([^*\n]{2,100})\*\*|[“\"]([^”\"\n]{2,100})[”\"]|^\s*(?:[-*•]|\d{1,2}[.)])\s+([^:\n(|"
    r"–—]{2,100}?)(?:\s+-\s|[:(|–—]|\s*$)"
)
_ADDRESS = re.compile(r"https?://[^\s<>()\[\]\"]+[^\s<>()\[\]\".,;:!?]")
_LABELS = frozenset(
    forms(
        "price prices stock size sizes colour colours material url link category availability status total "
        "description brand"
        " shipping product products option options note rating title name id number details summary "
        "recommendation in out of"
        " cheapest best difference correction features feature type style left pieces"
    )
)


@dataclass(frozen=True, slots=True)
class Passage:
    """A sentence or clause. `about`: products that it may mean, all alike for what it says, of those that have a
    `named` title; `phrase`: what it calls the
    product that it speaks of, where that is nothing known. `inherited`: it names none itself and goes on about the one
    before."""

    text: str
    about: tuple[Product, ...]
    money: tuple[Money, ...]
    phrase: str | None = None
    inherited: bool = False
    named: tuple[Product, ...] = ()


class Names:
    """The names of some products, made once for a text."""

    def __init__(self, products: Sequence[Product]) -> None:
        self._by_title: dict[tuple[str, ...], list[Product]] = {}
        for product in products:
            for name in dict.fromkeys((forms(product.title), forms(_DIVIDED.split(product.title, maxsplit=1)[0]))):
                if name:
                    self._by_title.setdefault(name, []).append(product)
        self._titles = sorted(self._by_title, key=lambda name: (-len(name), name))
        self._by_id = {product.id: product for product in products}
        self._by_url = {product.url: product for product in products if product.url}
        self._values = {
            product.id: [spoken for value in product.attributes.values() if (spoken := _spoken(forms(value)))]
            for product in products
        }

    def passages(self, text: str) -> list[Passage]:
        """The text in order, each part with what it is about."""
        found: list[Passage] = []
        for sentence in _SENTENCE.split(tidied(text)):
            if not sentence.strip():
                continue
            groups = self._groups(sentence)
            parts = [sentence]
            if len(groups) > 1 or (len(groups) == 1 and _both(sentence)):
                parts = [part for part in _CLAUSE.split(sentence) if part.strip()]
            for part in parts:
                found.append(self._passage(part, found[-1] if found else None))
        return found

    def named(self, text: str) -> tuple[Product, ...]:
        """Those that the text names, in its order; of variants between which it does not choose, the first."""
        return self.told_of(self.passages(text))

    def told_of(self, passages: Sequence[Passage]) -> tuple[Product, ...]:
        """As `named`, of a text's passages."""
        kept: dict[str, Product] = {}
        for passage in passages:
            for product in () if passage.inherited else self._told_apart(passage):
                kept.setdefault(product.id, product)
        return tuple(kept.values())

    def _passage(self, text: str, before: Passage | None) -> Passage:
        groups = self._groups(text)
        money = tuple(amounts(_ADDRESS.sub(lambda match: " " * len(match.group()), text)))
        if groups:
            about = [product for group in groups for product in self._narrowed(group, text, money)]
            every = tuple(product for group in groups for product in group)
            return Passage(text, tuple({one.id: one for one in about}.values()), money, named=every)
        phrase = _phrase(text)
        if phrase is not None:
            loose = self._loosely(phrase)
            if loose:
                return Passage(text, tuple(self._narrowed(loose, text, money)), money, named=tuple(loose))
            return Passage(text, (), money, phrase)
        if before is not None and before.about:
            other = self._says_values(before.named, text)  # "but the red one is"
            meant = tuple(self._narrowed(before.named, text, money)) if other else before.about
            return Passage(text, meant, money, inherited=not other, named=before.named)
        return Passage(text, (), money)

    def _groups(self, text: str) -> list[list[Product]]:
        """The products that a text names, those of one name together."""
        addressed = [self._by_url[url] for url in _ADDRESS.findall(text) if url in self._by_url]
        addressed += [self._by_id[one] for one in re.findall(r"[\w-]{4,}", text) if one in self._by_id]
        spoken, groups = _spoken(forms(_ADDRESS.sub(" ", text))), []
        for name in self._titles:
            said = _spoken(name)
            if said in spoken:
                spoken = spoken.replace(said, " | ")
                groups.append(self._by_title[name])
        for product in addressed:
            place = next((n for n, group in enumerate(groups) if product in group), None)
            if place is None:
                groups.append([product])
            else:
                chosen = [one for one in groups[place] if one in addressed]
                groups[place] = chosen
        return groups

    def _narrowed(self, group: Sequence[Product], text: str, money: Sequence[Money]) -> list[Product]:
        """Of variants with one name, those of which the text says most; a price alone does not decide."""
        if len(group) < 2:
            return list(group)
        spoken = _spoken(forms(text))
        scores = {one.id: sum(value in spoken for value in self._values[one.id]) for one in group}
        best = max(scores.values())
        kept = [one for one in group if scores[one.id] == best]
        priced = [one for one in kept if any(one.price == said.amount for said in money)]
        return priced or kept

    def _says_values(self, products: Sequence[Product], text: str) -> bool:
        spoken = _spoken(forms(text))
        return any(value in spoken for one in products for value in self._values[one.id])

    def _told_apart(self, passage: Passage) -> list[Product]:
        """One product for each combination of values that the passage says."""
        spoken = _spoken(forms(passage.text))
        kept: dict[tuple[str, ...], Product] = {}
        for product in passage.about:
            said = tuple(value for value in self._values[product.id] if value in spoken)
            kept.setdefault((product.title, *said), product)
        return list(kept.values())

    def _loosely(self, phrase: str) -> list[Product]:
        """Products whose title has at least half of the phrase's words, those with the most."""
        said = [word for word in forms(phrase) if not filler(word)]
        scores = {name: sum(word in name for word in said) for name in self._titles}
        best = max(scores.values(), default=0)
        if not said or 2 * best < len(said) or not best:
            return []
        return [one for name, score in scores.items() if score == best for one in self._by_title[name]]


def _phrase(text: str) -> str | None:
    """What a passage calls a product, by its quotation marks, its emphasis or its place in a list."""
    for match in _PHRASE.finditer(text):
        phrase = next(part for part in match.groups() if part is not None).strip(' .,:*_“”"')
        said = [word for word in forms(phrase) if word.isalpha() and len(word) > 1]
        telling = [word for word in said if word not in _LABELS and not filler(word)]
        if telling and len(said) <= 10 and said[0] not in _LABELS:
            return phrase
    return None


def _both(text: str) -> bool:
    """Whether a sentence says of one thing that it is there, and of another that it is not."""
    return bool(re.search(r"\b(?:but|while|whereas)\b", text))


def _spoken(name: Sequence[str]) -> str:
    return f" {' '.join(name)} " if name else ""
