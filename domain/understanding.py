"""What a text asks for, as data: intents that a tenant defines, examples, and what a classifier makes of a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from domain.carried import carried


@dataclass(frozen=True, slots=True)
class Example:
    """A text and the name of its intent."""

    text: str
    intent: str


@carried
@dataclass(frozen=True, slots=True)
class Entity:
    """A slot's value as found in a text: `text[start:end]` said it, `value` is what it means (a number, a date as ISO
    8601, a name as its gazetteer writes it)."""

    slot: str
    value: Any
    text: str
    start: int
    end: int


@carried
@dataclass(frozen=True, slots=True)
class Ranked:
    """An intent and the probability that it is the one."""

    name: str
    confidence: float


@carried
@dataclass(frozen=True, slots=True)
class Prediction:
    """`ranked`: the most probable intents, the best one first. `out_of_scope_score`: in [0, 1], higher for what none of
    them means; `out_of_scope`: whether it lies above the model's threshold."""

    ranked: tuple[Ranked, ...]
    out_of_scope_score: float = 0.0
    out_of_scope: bool = False


class IntentModel(Protocol):
    """A trained head: what names intents, given a text and its embedding. Cheap, and safe to share between threads."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def embedder(self) -> str:
        """Name and revision of the embedder whose vectors it was trained on."""
        ...

    def predict(self, text: str, embedding: Sequence[float]) -> Prediction: ...


class EntityExtractor(Protocol):
    def extract(self, text: str) -> list[Entity]:
        """In order of `start`; they do not overlap."""
        ...
