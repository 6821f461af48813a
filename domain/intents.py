"""Intents that a tenant defines, and the trainings that make a classifier's head of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from domain.understanding import Example

MOST_EXAMPLES = 50_000
"""Of one training, and of all intents of a tenant."""

Effort = Literal["first", "best"]
"""`first`: usable within seconds. `best`: as good as it gets, which may take minutes."""

TrainingStatus = Literal["queued", "running", "completed", "failed"]


class Slot(BaseModel):
    """What of a text an intent needs to know. `values`: what it may be, by name, with other words for each."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]
    kind: Annotated[str, Field(pattern=r"^[a-z][a-z_]{0,31}$")] = "text"
    description: Annotated[str, Field(max_length=2000)] = ""
    values: dict[str, list[str]] = {}
    pattern: Annotated[str, Field(max_length=500)] | None = None
    required: bool = False


class DefinedIntent(BaseModel):
    """An intent of a tenant. `needs_products`: whether an answer has to know the catalogue's products."""

    id: str
    object: Literal["intent"] = "intent"
    name: str
    description: str = ""
    examples: list[str] = []
    slots: list[Slot] = []
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
    effort: Effort = "best"

    @property
    def descriptions(self) -> dict[str, str]:
        return {name: text for name, one in self.definitions.items() if (text := one.get("description"))}
