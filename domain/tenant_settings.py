"""What a tenant is set to: its instructions, what is switched on, how long it keeps conversations, how much it may use.

Its rules for models are kept apart: `domain.model_settings`.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

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


Masking = Literal["off", "mask"]
ClaimsPolicy = Literal["off", "flag", "correct"]


def _or(default: Any) -> Callable[[Any], Any]:
    """Null is the default."""
    return lambda value: default if value is None else value


class Quotas(Strict):
    """How many of these a tenant may have; null: as many as there is room for."""

    max_conversations: int | None = Field(None, ge=0, le=1_000_000_000)
    max_users: int | None = Field(None, ge=0, le=1_000_000_000)
    max_keys: int | None = Field(None, ge=0, le=10_000)


class TenantSettings(Strict):
    """`system_prompt` stands before a conversation's own in each of its prompts. A conversation in which nothing has
    happened for `retention_days` is deleted. `pii_masking`: whether personal data is masked in stored text.
    `product_claims`: whether what answers say of products is checked against the catalogue, and then told in the trace
    alone or put right in the answer too.
    """

    system_prompt: str | None = Field(None, max_length=20_000)
    features: Annotated[dict[Feature, bool], BeforeValidator(_or({}), dict[Feature, bool] | None)] = Field({})
    retention_days: int | None = Field(None, ge=1, le=36_500)
    quotas: Annotated[Quotas, BeforeValidator(_or(Quotas()), Quotas | None)] = Quotas()
    limits: Annotated[Limits, BeforeValidator(_or(Limits()), Limits | None)] = Limits()
    pii_masking: Annotated[Masking, BeforeValidator(_or("off"), Masking | None)] = "off"
    product_claims: Annotated[ClaimsPolicy, BeforeValidator(_or("flag"), ClaimsPolicy | None)] = "flag"

    def enabled(self, feature: Feature) -> bool:
        return self.features.get(feature, True)

    def merged(self, given: "TenantSettings") -> "TenantSettings":
        """These with what `given` names in place of what they had."""
        return TenantSettings.model_validate(self.model_dump(exclude_unset=True) | given.model_dump(exclude_unset=True))

    def instructions(self, own: str | None) -> str | None:
        """The system prompt of a conversation whose own is `own`."""
        return "\n\n".join(one for one in (self.system_prompt, own) if one) or None
