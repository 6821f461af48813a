"""Precision, recall and F1 of slots: a find is right if its slot, start and end are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from deployments.entities.annotated import Annotated
from domain.understanding import EntityExtractor

ALL = "all (micro)"


@dataclass(slots=True)
class Score:
    """Counts a slot; `f1(ALL)` is over all slots' counts together."""

    right: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    wanted: Counter[str] = field(default_factory=Counter)

    @property
    def slots(self) -> list[str]:
        return [*sorted(slot for slot in self.wanted | self.found if slot != ALL), ALL]

    def precision(self, slot: str) -> float:
        return self.right[slot] / self.found[slot] if self.found[slot] else 0.0

    def recall(self, slot: str) -> float:
        return self.right[slot] / self.wanted[slot] if self.wanted[slot] else 0.0

    def f1(self, slot: str) -> float:
        """0 where nothing is right."""
        both = self.found[slot] + self.wanted[slot]
        return 2 * self.right[slot] / both if both else 0.0

    def macro(self) -> float:
        """The mean F1 of the slots that are wanted."""
        slots = [slot for slot in self.wanted if slot != ALL]
        return sum(map(self.f1, slots)) / len(slots)


def score(extractor: EntityExtractor, examples: Sequence[Annotated]) -> Score:
    """Compare what is found with what is marked."""
    result = Score()
    for example in examples:
        wanted = {(span.slot, span.start, span.end) for span in example.spans}
        found = {(entity.slot, entity.start, entity.end) for entity in extractor.extract(example.text)}
        for counts, spans in ((result.wanted, wanted), (result.found, found), (result.right, wanted & found)):
            for slot, _, _ in spans:
                counts[slot] += 1
                counts[ALL] += 1
    return result
