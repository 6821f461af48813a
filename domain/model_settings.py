"""What a tenant may use, what it prefers, and what it may spend."""

from fnmatch import fnmatchcase
from typing import Literal

from pydantic import Field, model_validator

from domain.model import Strict

Period = Literal["day", "month"]


class Budget(Strict):
    """USD that a tenant may spend in a calendar day or month (UTC). `soft`: an event; `hard`: 402 `budget_exceeded`."""

    period: Period = "month"
    soft_usd: float | None = Field(None, ge=0)
    hard_usd: float | None = Field(None, ge=0)


class Shadow(Strict):
    """A sampled share of turns that another model answers too, off the hot path."""

    model: str = Field(min_length=1, max_length=256)
    share: float = Field(ge=0, le=1)


class ModelSettings(Strict):
    """A tenant's rules for models. Absent ones are those of the catalog's routing.

    `preferences`: model to a number from -1 (avoid) to 1 (prefer), added to what `auto` reckons. `weight`: its share
    of a provider that several tenants wait for; `weight` and `budget` are the operator's to set.
    """

    allowed: list[str] | None = Field(None, max_length=200, description="ids and patterns; null allows all")
    default: str | None = Field(None, min_length=1, max_length=256)
    fallback: list[str] | None = Field(None, max_length=20)
    preferences: dict[str, float] = Field({}, max_length=200)
    cost_quality: float | None = Field(None, ge=0, le=1, description="0: the cheapest that will do; 1: the best")
    judge: str | None = Field(None, min_length=1, max_length=256, description="chooses the best of several answers")
    shadow: Shadow | None = None
    summary_model: str | None = Field(
        None, min_length=1, max_length=256, description="writes the summaries of conversations; null: extracted"
    )
    weight: float = Field(1.0, gt=0, le=1000)
    budget: Budget | None = None

    @model_validator(mode="after")
    def bounded_preferences(self) -> "ModelSettings":
        if any(not -1 <= value <= 1 for value in self.preferences.values()):
            raise ValueError("preferences: each is a number from -1 to 1")
        return self

    def allows(self, model_id: str) -> bool:
        """Whether this tenant may use the model."""
        return self.allowed is None or any(fnmatchcase(model_id, one) for one in self.allowed)
