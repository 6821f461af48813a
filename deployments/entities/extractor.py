"""Finds the values of a tenant's slots in a text."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from deployments.entities import contacts, looks, numbers
from deployments.entities.candidates import Candidate, resolve
from deployments.entities.cues import Cues, bonus
from deployments.entities.dates import dates
from deployments.entities.gazetteer import Gazetteer
from deployments.entities.regular import Allowance, compiled, found, searchable
from deployments.entities.times import times
from deployments.entities.words import Word, words
from domain.errors import InvalidSlot
from domain.slots import MOST_SLOTS, SlotDefinition
from domain.understanding import Entity

MOST_ENTITIES = 500


@dataclass(frozen=True, slots=True)
class _Said:
    """A text, its words, and what patterns may still spend on it."""

    text: str
    words: Sequence[Word]
    allowance: Allowance
    today: date


Finder = Callable[[_Said], list[Candidate]]
_BUILT_IN: dict[str, Callable[[str], list[Candidate]]] = {
    "number": numbers.numbers,
    "quantity": numbers.quantities,
    "price": numbers.prices,
    "percentage": numbers.percentages,
    "time": times,
    "email": contacts.emails,
    "phone": contacts.phones,
    "url": contacts.urls,
    "order_number": contacts.order_numbers,
    "size": looks.sizes,
}


class Extractor:
    """An `EntityExtractor` of patterns and lists, safe to share between threads.

    `gazetteers`: shared lists by name (products from the catalogue, cities), built once for all who use them. `today`:
    what relative dates count from, asked at each text. `ordinary`: words of the tenant's texts that are never misspelt
    names. Raises InvalidSlot: a bad pattern or name, two slots of one name, an unknown gazetteer, too many slots.
    """

    def __init__(
        self,
        slots: Sequence[SlotDefinition],
        gazetteers: Mapping[str, Gazetteer] | None = None,
        today: Callable[[], date] = date.today,
        ordinary: Collection[str] = (),
    ) -> None:
        if len(slots) > MOST_SLOTS:
            raise InvalidSlot(slots[MOST_SLOTS].name, f"at most {MOST_SLOTS} slots")
        names: set[str] = set()
        for slot in slots:
            if slot.name in names:
                raise InvalidSlot(slot.name, "defined twice")
            names.add(slot.name)
        self.slots, self._today = tuple(slots), today
        self._finders = [finder for slot in slots for finder in [_finder(slot, gazetteers or {}, ordinary)]]
        self._cues = Cues([slot.cues for slot in slots])

    def extract(self, text: str) -> list[Entity]:
        """Of two that overlap the longer and surer one stays. The first MOST_ENTITIES of a text."""
        clean = searchable(text)
        said = _Said(clean, words(clean), Allowance(), self._today())
        starts, places = [word.start for word in said.words], self._cues.places(said.words)
        candidates: list[Candidate] = []
        for rank, (slot, finders) in enumerate(zip(self.slots, self._finders, strict=True)):
            for one in finders(said):
                cue = bonus(rank, one.start, one.end, starts, places) if slot.cues else 0.0
                if cue or not (slot.needs_cue or one.needs_cue):
                    candidates.append(replace(one, slot=slot.name, rank=rank, score=one.score + cue))
        kept = resolve(candidates)[:MOST_ENTITIES]
        return [Entity(c.slot, c.value, text[c.start : c.end], c.start, c.end) for c in kept]


def _finder(slot: SlotDefinition, gazetteers: Mapping[str, Gazetteer], ordinary: Collection[str]) -> Finder:
    """What finds this slot's candidates."""
    if slot.kind == "list":
        return _of_lists(slot, gazetteers, ordinary)
    if slot.pattern is not None:
        pattern = compiled(slot.name, slot.pattern)
        return lambda said: found(pattern, said.text, said.allowance)
    if slot.kind == "date":
        return lambda said: dates(said.text, said.today, slot.day_first)
    if slot.kind == "colour":
        return lambda said: looks.colours(said.text, said.words, slot.fuzzy)
    built_in = _BUILT_IN[slot.kind]
    return lambda said: built_in(said.text)


def _of_lists(slot: SlotDefinition, gazetteers: Mapping[str, Gazetteer], ordinary: Collection[str]) -> Finder:
    lists: list[Gazetteer] = []
    if slot.values:
        try:
            lists.append(Gazetteer(slot.values, slot.fuzzy, ordinary))
        except ValueError as error:
            raise InvalidSlot(slot.name, str(error)) from None
    if slot.gazetteer is not None:
        if slot.gazetteer not in gazetteers:
            known = ", ".join(sorted(gazetteers)) or "none"
            raise InvalidSlot(slot.name, f"no gazetteer {slot.gazetteer!r}; there are: {known}")
        lists.append(gazetteers[slot.gazetteer])
    return lambda said: [one for each in lists for one in each.found(said.text, said.words)]


def parameters(entities: Sequence[Entity], slots: Sequence[SlotDefinition]) -> dict[str, Any]:
    """An intent's parameters: the value of each of its slots that was found, a list where there are several different
    ones. Slots that were not found are absent; which of them are required is in `slots`."""
    wanted = {slot.name for slot in slots}
    filled: dict[str, list[Any]] = {}
    for entity in entities:
        if entity.slot in wanted and entity.value not in (values := filled.setdefault(entity.slot, [])):
            values.append(entity.value)
    return {slot: values[0] if len(values) == 1 else values for slot, values in filled.items()}
