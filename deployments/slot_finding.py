"""Slot values in a text: names of lists, and numbers of orders. A thin `EntityExtractor`."""

import re
from collections.abc import Sequence

from domain.slots import SlotDefinition
from domain.understanding import Entity, EntityExtractor

_ORDER = r"(?:(?<=#)|\b)(?=[A-Z0-9-]*\d)[A-Z0-9][A-Z0-9-]{3,31}\b"


class Names:
    """Finds each slot's names as they are written, whatever the case; of two that overlap the longer one."""

    def __init__(self, slots: Sequence[SlotDefinition]) -> None:
        self._finders = [(slot.name, *found) for slot in slots if (found := _finder(slot))]

    def extract(self, text: str) -> list[Entity]:
        found = [
            Entity(slot, meant.get(hit.group().casefold(), hit.group()), hit.group(), *hit.span())
            for slot, pattern, meant in self._finders
            for hit in pattern.finditer(text)
        ]
        kept: list[Entity] = []
        for one in sorted(found, key=lambda one: (one.start - one.end, one.start)):
            if all(one.end <= other.start or other.end <= one.start for other in kept):
                kept.append(one)
        return sorted(kept, key=lambda one: one.start)


def extractor(slots: Sequence[SlotDefinition]) -> EntityExtractor:
    return Names(slots)


def _finder(slot: SlotDefinition) -> tuple[re.Pattern[str], dict[str, str]] | None:
    if slot.kind == "order_number":
        return re.compile(_ORDER, re.IGNORECASE), {}
    meant = {name.casefold(): one.value for one in slot.values for name in (*one.synonyms, one.value)}
    if slot.kind != "list" or not meant:
        return None
    names = "|".join(re.escape(name) for name in sorted(meant, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{names})(?!\w)", re.IGNORECASE), meant
