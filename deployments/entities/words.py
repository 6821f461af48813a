"""Words of a text with their offsets, and the form in which they are compared."""

import re
from dataclasses import dataclass
from unicodedata import category, normalize

import re2

_ASCII = re.compile(r"[A-Za-z]+[+#]*|[0-9]+")
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]"
_ANY = re2.compile(rf"{_UNSPACED}|[\pL\pM][\pL\pM\p{{Cf}}]*[+#]*|\pN+")
_SPLIT = re2.compile(_UNSPACED)
_IGNORED = ("Mn", "Me", "Cf")


@dataclass(frozen=True, slots=True)
class Word:
    """`text[start:end]`, and how it is compared: case folded, without accents and invisible characters. A letter and a
    digit never share a word; in a script without spaces each character is one."""

    form: str
    start: int
    end: int


def words(text: str) -> list[Word]:
    """In order. The text has no lone surrogates."""
    if text.isascii():
        return [Word(m.group().lower(), m.start(), m.end()) for m in _ASCII.finditer(text)]
    found = []
    for match in _ANY.finditer(text):
        start, end = match.span()
        found.extend(_pieces(text, start, end))
    return found


def _pieces(text: str, start: int, end: int) -> list[Word]:
    """One word, or the characters of a run that mixes scripts."""
    run, pieces, begin = text[start:end], [], 0
    cuts = [m.start() for m in _SPLIT.finditer(run)] if end - start > 1 else []
    for cut in cuts:
        pieces.append((begin, cut))
        pieces.append((cut, cut + 1))
        begin = cut + 1
    pieces.append((begin, len(run)))
    return [
        Word(form, start + first, start + last) for first, last in pieces if last > first and (form := fold(run[first:last]))
    ]


def fold(text: str) -> str:
    """The form that equal words share."""
    if text.isascii():
        return text.lower()
    plain = "".join(c for c in normalize("NFKD", text) if category(c) not in _IGNORED)
    return plain.casefold()


def forms(name: str) -> tuple[str, ...]:
    """The words of a name as they are compared."""
    return tuple(word.form for word in words(name))
