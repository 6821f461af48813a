"""Words of a text with their offsets, and the form in which they are compared."""

import re
from dataclasses import dataclass
from unicodedata import category, normalize

import re2

from deployments.entities.regular import searchable

_ASCII = re.compile(r"[A-Za-z]+[+#]*|[0-9]+")
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]\pM*"
_ANY = re2.compile(rf"{_UNSPACED}|[\pL\pM][\pL\pM\p{{Cf}}]*[+#]*|\pN+")
_SPLIT = re2.compile(_UNSPACED)


@dataclass(frozen=True, slots=True)
class Word:
    """`text[start:end]`, and how it is compared: case folded, without European accents and invisible characters. A
    letter and a digit never share a word; in a script without spaces each character is one."""

    form: str
    start: int
    end: int


def words(text: str) -> list[Word]:
    """In order."""
    if text.isascii():
        return [Word(m.group().lower(), m.start(), m.end()) for m in _ASCII.finditer(text)]
    found = []
    clean = searchable(text)
    for match in _ANY.finditer(clean):
        found.extend(_pieces(clean, *match.span()))
    return found


def _pieces(text: str, start: int, end: int) -> list[Word]:
    """One word, or the words of a run that mixes scripts."""
    run, found, done = text[start:end], [], 0
    for match in _SPLIT.finditer(run) if end - start > 1 else ():
        first, last = match.span()
        found += [(done, first), (first, last)]
        done = last
    found.append((done, len(run)))
    return [
        Word(form, start + first, start + last)
        for first, last in found
        if last > first and (form := fold(run[first:last]))
    ]


def fold(text: str) -> str:
    """The form that equal words share."""
    if text.isascii():
        return text.lower()
    plain = "".join(c for c in normalize("NFKD", text) if not "\u0300" <= c <= "\u036f" and category(c) != "Cf")
    return plain.casefold()


def forms(name: str) -> tuple[str, ...]:
    """The words of a name as they are compared."""
    if name.isascii():
        return tuple(_ASCII.findall(name.lower()))
    return tuple(word.form for word in words(name))
