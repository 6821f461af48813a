"""What finds the slots of an intent."""

from collections.abc import Sequence

from deployments.entities.extractor import Extractor
from domain.slots import SlotDefinition
from domain.understanding import EntityExtractor

BYTES_A_SLOT, BYTES_A_VALUE, BYTES_A_FUZZY_VALUE = 2000, 500, 2500
"""Estimates; docs/entities.md has the figures of large lists."""


def extractor(slots: Sequence[SlotDefinition]) -> EntityExtractor:
    """Raises `InvalidSlot`; takes a while for long lists."""
    return Extractor(slots)


def size(slots: Sequence[SlotDefinition]) -> int:
    """Bytes that their extractor holds, an estimate."""
    return sum(
        BYTES_A_SLOT + len(slot.values) * (BYTES_A_FUZZY_VALUE if slot.fuzzy else BYTES_A_VALUE) for slot in slots
    )
