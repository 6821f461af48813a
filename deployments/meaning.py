"""What a text means by one version of a tenant's intents: the head's word, slot values, what to ask in doubt."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from deployments.slot_finding import extractor, size
from deployments.states import States
from deployments.understanding import TunedHead
from domain.analysis import parameters
from domain.clarifying import OTHER, clarification
from domain.errors import BrainError
from domain.message import Intent
from domain.ports import Understanding
from domain.slots import SlotDefinition
from domain.understanding import Entity, EntityExtractor, IntentModel

log = logging.getLogger("brain.intents")


class Meaning:
    """`version` 0 is the shared set. `definitions`: of its intents by name, as they were when the head was trained."""

    def __init__(self, version: int, model: IntentModel, definitions: Mapping[str, Mapping[str, Any]]) -> None:
        self.version, self.model = version, model
        self._products = {name for name, one in definitions.items() if one.get("needs_products")}
        self._extractors: dict[str, EntityExtractor] = {}
        self.size = model.size if isinstance(model, TunedHead) else 0
        """Bytes of what is held beside the head's artefact, an estimate."""
        for name, one in definitions.items():
            try:
                slots = [SlotDefinition.model_validate(slot) for slot in one.get("slots") or ()]
                if slots:
                    self._extractors[name] = extractor(slots)
            except (ValidationError, BrainError, ValueError) as error:  # as an older or newer version allowed it
                log.warning("slots of the intent %r are not looked for: %s", name, error)
                continue
            self.size += size(slots)

    @property
    def tuned(self) -> bool:
        """Whether `of` needs a text's states."""
        return isinstance(self.model, TunedHead)

    def of(self, text: str, embedding: Sequence[float], states: States | None = None) -> Understanding:
        """`embedding` goes into the answer as it is. Slots are those of the best named intent, also out of scope."""
        if isinstance(self.model, TunedHead):
            found = self.model.predict(text, embedding, states)
        else:
            found = self.model.predict(text, embedding)
        named = next((one for one in found.ranked if one.name != OTHER), found.ranked[0])
        entities: tuple[Entity, ...] = ()
        if (finder := self._extractors.get(named.name)) is not None:
            entities = tuple(finder.extract(text))
        if found.out_of_scope:
            intent = Intent(name=OTHER, confidence=1 - named.confidence if named.name != OTHER else named.confidence)
        else:
            best = found.ranked[0]
            intent = Intent(name=best.name, confidence=best.confidence, parameters=parameters(entities))
        return Understanding(
            intent,
            [Intent(name=one.name, confidence=one.confidence) for one in found.ranked],
            embedding,
            version=self.version,
            out_of_scope=found.out_of_scope,
            out_of_scope_score=found.out_of_scope_score,
            entities=entities,
            clarification=None if found.out_of_scope else clarification(found.ranked),
            needs_products=not found.out_of_scope and named.name in self._products,
        )
