"""What users told about themselves, found by stated patterns in English messages: name, places, sizes, orders, …

A fact has a key; of several with one key the latest holds. No model is asked, and what no pattern knows is left to the
summary.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from domain.context.fact_patterns import CLAUSE, MINE, NOT_A_KIND, NOT_TOLD, PATTERNS, Pattern
from domain.context.remembered import Remembered
from domain.context.sentences import sentences

MOST_FACTS = 64
_LONGEST = 120  # characters of a value
_COMMA = re.compile(r",(?!\d)")
_SEVERAL = " = "  # between the key and the value that is a part of it


@dataclass(frozen=True, slots=True)
class Fact:
    """`order`: of the turn whose message told it."""

    key: str
    value: str
    order: int

    @property
    def name(self) -> str:
        """The key as people read it: without the value, where that is a part of it."""
        return self.key.partition(_SEVERAL)[0]


def facts_in(text: str, order: int) -> list[Fact]:
    """What a user's message tells, in the order of its sentences. Questions tell nothing."""
    found: list[Fact] = []
    for sentence in sentences(text.replace("’", "'")):
        if sentence.endswith("?"):
            continue
        told = [fact for pattern in PATTERNS if (fact := _fact(pattern, sentence, order)) is not None]
        known = {fact.value for fact in told}
        mine = [fact for pattern in MINE for match in pattern.finditer(sentence) for fact in _mine(match, order)]
        found += [*told, *(fact for fact in mine if fact.value not in known)]
    return found


def facts_of(messages: Iterable[Remembered]) -> list[Fact]:
    """What the users' messages among these tell."""
    return [fact for one in messages if one.role == "user" for fact in facts_in(one.content, one.order)]


def merged(known: Sequence[Fact], new: Iterable[Fact]) -> tuple[Fact, ...]:
    """`known` and `new` in the order in which they were told; of one turn's with one key the last."""
    facts = {(fact.key, fact.order): fact for fact in known}
    for fact in new:
        facts.pop((fact.key, fact.order), None)
        facts[fact.key, fact.order] = fact
    return tuple(facts.values())


def latest(facts: Iterable[Fact], before: int) -> list[Fact]:
    """What holds at the turn `before`: of each key the last one told in an earlier turn. At most `MOST_FACTS`."""
    held: dict[str, Fact] = {}
    for fact in facts:
        if fact.order < before:
            held.pop(fact.key, None)
            held[fact.key] = fact
    return list(held.values())[-MOST_FACTS:]


def line(fact: Fact) -> str:
    """As a prompt tells it."""
    return f"{fact.name}: {fact.value}"


def _fact(pattern: Pattern, sentence: str, order: int) -> Fact | None:
    match = pattern.found.search(sentence)
    value = _trimmed(match["value"], pattern.commas) if match else ""
    if not value or NOT_TOLD.match(value):
        return None
    return Fact(f"{pattern.key}{_SEVERAL}{value.casefold()}" if pattern.many else pattern.key, value, order)


def _mine(match: re.Match[str], order: int) -> list[Fact]:
    kind = " ".join(match["kind"].split()).casefold()
    value = _trimmed(match["value"], "address" in kind)
    told = value and kind not in NOT_A_KIND and kind.rpartition(" ")[2] not in NOT_A_KIND - {"name"}
    return [Fact(kind, value, order)] if told and not NOT_TOLD.match(value) else []


def _trimmed(value: str, commas: bool) -> str:
    value = CLAUSE.split(value, maxsplit=1)[0]
    if not commas:
        value = _COMMA.split(value, maxsplit=1)[0]
    return value.strip(" .,!\"'()")[:_LONGEST].rstrip()
