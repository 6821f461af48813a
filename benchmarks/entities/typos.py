"""The same texts with typing mistakes; what is marked stays marked."""

import random
from collections.abc import Sequence
from dataclasses import replace

from deployments.entities.annotated import Annotated
from deployments.entities.words import words

SHORTEST = 4  # letters of a word that may be mistyped
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def mistyped(examples: Sequence[Annotated], share: float, seed: int) -> list[Annotated]:
    """`share` of the words of four letters or more with one letter added, left out, changed, or exchanged with the next
    one, at random; names too. Digits stay, for another number is another order."""
    chance = random.Random(seed)
    return [_mistyped(example, share, chance) for example in examples]


def _mistyped(example: Annotated, share: float, chance: random.Random) -> Annotated:
    for word in reversed(words(example.text)):
        said = example.text[word.start : word.end]
        if len(said) >= SHORTEST and said.isalpha() and chance.random() < share:
            example = _replaced(example, word.start, word.end, _mistake(said, chance))
    return example


def _mistake(word: str, chance: random.Random) -> str:
    place, kind = chance.randrange(len(word)), chance.randrange(4)
    if kind == 0:
        return word[:place] + chance.choice(LETTERS) + word[place:]
    if kind == 1:
        return word[:place] + word[place + 1 :]
    if kind == 2:
        return word[:place] + chance.choice(LETTERS) + word[place + 1 :]
    place = min(place, len(word) - 2)
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def _replaced(example: Annotated, start: int, end: int, word: str) -> Annotated:
    """With another word there; spans after it move, a span that has it grows or shrinks."""
    by = len(word) - (end - start)
    spans = tuple(
        replace(span, start=span.start + by * (span.start >= end), end=span.end + by * (span.end >= end))
        for span in example.spans
    )
    return Annotated(example.text[:start] + word + example.text[end:], spans)
