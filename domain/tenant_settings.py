"""What a tenant is set to: its instructions, what is switched on, how long it keeps conversations, how much it may use.

Its rules for models are kept apart: `domain.model_settings`.
"""

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from domain.model import Strict
from domain.rates import Limits

Feature = Literal["completions", "embeddings", "recall"]
FEATURES: dict[Feature, str] = {
    "completions": "the OpenAI-compatible completions",
    "embeddings": "the OpenAI-compatible embeddings",
    "recall": "prompts tell a user's similar exchanges of other conversations",
}
"""What can be switched off for a tenant; each is on unless its settings say otherwise."""

OPERATORS_OWN = ("features", "quotas", "limits")
"""Settings that a tenant does not give itself."""


class Quotas(Strict):
    """How many of these a tenant may have; null: as many as there is room for."""

    max_conversations: int | None = Field(None, ge=0, le=1_000_000_000)
    max_users: int | None = Field(None, ge=0, le=1_000_000_000)
    max_keys: int | None = Field(None, ge=0, le=10_000)


class TenantSettings(Strict):
    """`system_prompt` stands before a conversation's own in each of its prompts. A conversation in which nothing has
    happened for `retention_days` is deleted. `pii_masking`: whether personal data is masked in stored text.
    """

    system_prompt: str | None = Field(None, max_length=20_000)
    features: dict[Feature, bool] = Field({})
    retention_days: int | None = Field(None, ge=1, le=36_500)
    quotas: Quotas = Quotas()
    limits: Limits = Limits()
    pii_masking: Literal["off", "mask"] = "off"

    @field_validator("features", "quotas", "limits", "pii_masking", mode="before")
    @classmethod
    def null_is_the_default(cls, value: Any, info: ValidationInfo) -> Any:
        return cls.model_fields[str(info.field_name)].get_default() if value is None else value

    def enabled(self, feature: Feature) -> bool:
        return self.features.get(feature, True)

    def merged(self, given: "TenantSettings") -> "TenantSettings":
        """These with what `given` names in place of what they had."""
        return TenantSettings.model_validate(self.model_dump(exclude_unset=True) | given.model_dump(exclude_unset=True))

    def instructions(self, own: str | None) -> str | None:
        """The system prompt of a conversation whose own is `own`."""
        return "\n\n".join(one for one in (self.system_prompt, own) if one) or None
