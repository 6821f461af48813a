"""Intents that a tenant defines, and the trainings that make a classifier's head of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel

from domain.slots import SlotDefinition
from domain.understanding import Example

MOST_EXAMPLES = 50_000
"""Of one training, and of all intents of a tenant."""

Effort = Literal["first", "best"]
"""Of a head. `first`: usable within seconds. `best`: as good as it gets, which may take minutes."""

TrainingEffort = Literal["first", "best", "tuned"]
"""Of a training: the heads up to this one. `tuned`: its best head has layers of the embedder's model for itself, tuned
to the intents, which takes minutes."""

TrainingStatus = Literal["queued", "running", "completed", "failed"]


class DefinedIntent(BaseModel):
    """An intent of a tenant. `needs_products`: whether an answer has to know the catalogue's products."""

    id: str
    object: Literal["intent"] = "intent"
    name: str
    description: str = ""
    examples: list[str] = []
    slots: list[SlotDefinition] = []
    needs_products: bool = False
    created_at: datetime
    updated_at: datetime


class Training(BaseModel):
    """A training as a job. `version`: the newest head that it made; `progress` in [0, 1]; `phase` says it in words."""

    id: str
    object: Literal["intent_training"] = "intent_training"
    status: TrainingStatus
    progress: float
    phase: str
    version: int | None
    metrics: dict[str, Any] = {}
    error: dict[str, Any] | None = None
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "failed")


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What a head is made from. `definitions`: of its intents by name, what an answer needs of them beside the head:
    `description`, `slots`, `needs_products`."""

    examples: tuple[Example, ...]
    validation: tuple[Example, ...] = ()
    definitions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    effort: TrainingEffort = "best"

    @property
    def descriptions(self) -> dict[str, str]:
        return {name: text for name, one in self.definitions.items() if (text := one.get("description"))}


@dataclass(frozen=True, slots=True)
class Claim:
    """A training in a trainer's hands: what it writes counts while the claim holds. `attempt` counts claims."""

    tenant: str
    id: str
    trainer: UUID
    attempt: int


@dataclass(frozen=True, slots=True)
class NewHead:
    """`embedder`: name and revision of the one it was trained with. `fingerprint`: of what it was trained from.
    `definitions` as of a `TrainingRequest`."""

    embedder: str
    artefact: bytes
    fingerprint: bytes
    effort: Effort
    definitions: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
