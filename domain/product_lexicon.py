"""The words of a catalogue: its categories, and the values of its attributes, as people say them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from domain.product_words import Word, filler, forms, near
from domain.products import Structure

MOST_WORDS = 6  # of a name that is looked for
_SIZES = {
    "xxs": "extra extra small",
    "xs": "extra small",
    "s": "small",
    "m": "medium",
    "l": "large",
    "xl": "extra large",
    "xxl": "extra extra large",
    "xxxl": "extra extra extra large",
}
_SAME_SIZE = {"2xl": "xxl", "3xl": "xxxl", "xxl": "2xl", "xxxl": "3xl"}
_YES, _NO = frozenset({"yes", "true"}), frozenset({"no", "none", "false"})
_NEGATIONS = frozenset({"not", "no", "non", "without", "except", "isn", "aren", "un"})


@dataclass(frozen=True, slots=True)
class Wish:
    """Values that are asked for, by the attributes that have them: the same word can be a frame's colour and a lens'.

    `negated`: any but these.
    """

    said: str
    values: dict[str, tuple[str, ...]]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """`words[start:end]` name a category, or values."""

    start: int
    end: int
    category: str | None = None
    wish: Wish | None = None


@dataclass(slots=True)
class _Named:
    category: str | None = None
    values: dict[str, list[str]] = field(default_factory=dict)


class Lexicon:
    """Built once for a `Structure`: some milliseconds for a thousand values."""

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.attributes = {attribute: frozenset(forms(attribute)) for attribute in structure.attributes}
        self._names: dict[tuple[str, ...], _Named] = {}
        self._flags: dict[str, dict[bool, str]] = {}
        for category in structure.categories:
            for name in {category, category.replace("/", ">").split(">")[-1]}:
                self._named(forms(name)).category = category
        for attribute, values in structure.attributes.items():
            for value in values:
                self._add(attribute, value)
        self._known = {word for name in self._names for word in name}
        self._spelling: dict[str, list[str]] = {}
        for word in self._known:
            if len(word) >= 5:
                self._spelling.setdefault(word[0], []).append(word)

    def attribute(self, words: Sequence[str]) -> str | None:
        """The attribute that these words name: all of its name, else the last word of it."""
        said = set(words)
        whole = [one for one, name in self.attributes.items() if name <= said]
        if whole:
            return max(whole, key=lambda one: len(self.attributes[one]))
        return next((one for one in self.attributes if (name := forms(one)) and name[-1] in said), None)

    def spelt(self, form: str) -> str:
        """The known word that an unknown one may be."""
        if form in self._known or len(form) < 5 or filler(form):
            return form
        return next((one for one in self._spelling.get(form[0], ()) if near(one, form)), form)

    def matches(self, words: Sequence[Word]) -> list[Match]:
        """What the words name, the longest names first from the left; in order, without overlaps."""
        spelt = [self.spelt(word.form) for word in words]
        found: list[Match] = []
        place = 0
        while place < len(words):
            match = self._match(words, spelt, place)
            found += [match] if match else []
            place = match.end if match else place + 1
        return found

    def _match(self, words: Sequence[Word], spelt: list[str], start: int) -> Match | None:
        for end in range(min(len(words), start + MOST_WORDS), start, -1):
            name = tuple(spelt[start:end])
            named = self._names.get(name)
            if named is None and end - start == 2 and all(part.isalpha() for part in name):
                named = self._names.get(("".join(name),))
            if named is None:
                continue
            if named.category is not None:
                return Match(start, end, named.category)
            if wish := self._wish(words, spelt, start, end, named):
                return Match(start, end, wish=wish)
        return self._flag(words, spelt, start)

    def _wish(self, words: Sequence[Word], spelt: list[str], start: int, end: int, named: _Named) -> Wish | None:
        near_by = {*spelt[max(0, start - 2) : start], *spelt[end : end + 2]}
        cued = {one: values for one, values in named.values.items() if self.attributes[one] & near_by}
        whole = {one: values for one, values in cued.items() if self.attributes[one] <= near_by}
        cued = whole or cued  # "size" is not a room's size
        if not cued and end - start == 1 and self._needs_cue(words, start):
            return None
        said = " ".join(word.said for word in words[start:end])
        values = {one: tuple(found) for one, found in (cued or named.values).items()}
        return Wish(said, values, start > 0 and words[start - 1].form in _NEGATIONS)

    def _needs_cue(self, words: Sequence[Word], place: int) -> bool:
        """Whether the word alone says too little: a number, a letter, or a word that means much else."""
        word = words[place]
        if word.form.upper() == word.said and word.form in _SIZES:  # "in M"
            return False
        return word.form[:1].isdigit() or len(word.form) < 2 or (word.form in _YES | _NO)

    def _flag(self, words: Sequence[Word], spelt: list[str], start: int) -> Match | None:
        """An attribute that is there or is not: "waterproof", "without backlight"."""
        for attribute, flags in self._flags.items():
            name = forms(attribute)
            if tuple(spelt[start : start + len(name)]) != name:
                continue
            negated = start > 0 and words[start - 1].form in _NEGATIONS
            said = " ".join(word.said for word in words[start - negated : start + len(name)])
            if negated and False in flags:
                return Match(start - negated, start + len(name), wish=Wish(said, {attribute: (flags[False],)}))
            if not negated and True in flags:
                return Match(start, start + len(name), wish=Wish(said, {attribute: (flags[True],)}))
            if not negated and False in flags and attribute not in ("features", "type"):
                return Match(start, start + len(name), wish=Wish(said, {attribute: (flags[False],)}, negated=True))
        return None

    def _add(self, attribute: str, value: str) -> None:
        name = forms(value)
        if not name:
            return
        if name[0] in _YES | _NO and len(name) == 1:
            self._flags.setdefault(attribute, {})[name[0] in _YES] = value
        said = {name}
        if 1 < len(name) <= 3 and all(part.isalpha() for part in name):
            said.add(("".join(name),))
        if len(name) > 2 and name[0][:1].isdigit() and not name[1][:1].isdigit():
            said.add(name[:2])  # "256GB" of "256GB SSD"
        if len(name) == 1 and name[0] in _SIZES:
            said.add(tuple(_SIZES[name[0]].split()))
            said |= {forms(_SAME_SIZE[name[0]])} if name[0] in _SAME_SIZE else set()
        elif (letters := next((one for one, word in _SIZES.items() if word == " ".join(name)), None)) is not None:
            said.add((letters,))
        for one in said:
            self._named(one).values.setdefault(attribute, []).append(value)

    def _named(self, name: tuple[str, ...]) -> _Named:
        return self._names.setdefault(name, _Named())
