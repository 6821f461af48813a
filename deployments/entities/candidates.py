"""What may be a slot's value, and which of those that overlap is."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from unicodedata import category


@dataclass(frozen=True, slots=True)
class Candidate:
    """`text[start:end]` may mean `value`. `score`: how sure that is, 1.0 for a name found letter by letter; `rank`: the
    place of its slot in the tenant's order. `name`: which name of a list it is, for lists."""

    start: int
    end: int
    value: Any
    score: float
    slot: str = ""
    rank: int = 0
    needs_cue: bool = False

    @property
    def weight(self) -> float:
        return self.score * (self.end - self.start)


def resolve(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that stay, in order of `start`: of two that overlap the heavier one (length times score), then the earlier
    one, then the one whose slot was defined first."""
    starts: list[int] = []
    kept: list[Candidate] = []
    for one in sorted(candidates, key=lambda c: (-c.weight, c.start, c.rank)):
        place = bisect_left(starts, one.start)
        if place and kept[place - 1].end > one.start:
            continue
        if place < len(kept) and kept[place].start < one.end:
            continue
        starts.insert(place, one.start)
        kept.insert(place, one)
    return kept


def bounded(text: str, start: int, end: int) -> bool:
    """Whether `text[start:end]` begins and ends with a word, not within one. A long number may lack the space before
    it ("order732201349959")."""
    if end < len(text) and _joined(text[end - 1], text[end]):
        return False
    if not start or not _joined(text[start - 1], text[start]):
        return True
    return end - start >= 5 and text[start].isdecimal() and start >= 4 and text[start - 4 : start].isalpha()


def _joined(left: str, right: str) -> bool:
    if category(right) in ("Mn", "Mc", "Me", "Cf"):
        return True
    return _in_word(left) and _in_word(right) and not (unspaced(left) or unspaced(right))


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_" or category(character) in ("Mn", "Mc", "Me", "Cf")


def unspaced(character: str) -> bool:
    """Whether its script writes words without spaces between them: Thai, Japanese, Chinese."""
    return (
        "\u0e00" <= character <= "\u0e7f"
        or "\u3040" <= character <= "\u30ff"
        or "\u3400" <= character <= "\u9fff"
        or "\U00020000" <= character <= "\U0003ffff"
    )
