"""What a message was taken to mean, as it is stored in a turn's trace and told by the API."""

from collections.abc import Sequence
from typing import Any

from domain.clarifying import clarification_json
from domain.ports import Understanding
from domain.understanding import Entity


def analysis_json(found: Understanding) -> dict[str, Any]:
    return {
        "intent": found.intent.model_dump(),
        "ranked": [{"name": one.name, "confidence": one.confidence} for one in found.ranked],
        "out_of_scope": found.out_of_scope,
        "out_of_scope_score": found.out_of_scope_score,
        "entities": [entity_json(one) for one in found.entities],
        "clarification": found.clarification and clarification_json(found.clarification),
        "complexity": found.complexity,
        "version": found.version,
    }


def entity_json(one: Entity) -> dict[str, Any]:
    return {"slot": one.slot, "value": one.value, "text": one.text, "start": one.start, "end": one.end}


def parameters(entities: Sequence[Entity]) -> dict[str, Any]:
    """Values by slot; a list where a slot has several."""
    found: dict[str, list[Any]] = {}
    for one in entities:
        if one.value not in found.setdefault(one.slot, []):
            found[one.slot].append(one.value)
    return {slot: values[0] if len(values) == 1 else values for slot, values in found.items()}
