"""Models, their providers and the routing between them: the shape of `--config` files and of Serve's `user_config`."""

import re
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from domain.message import Usage
from domain.turn import Parameters

AUTO = "auto"
SCRIPTED = "scripted"
ProviderKind = Literal["openai", "anthropic", "vllm", "scripted"]
_REFERENCE = re.compile(r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$")


class Strict(BaseModel):
    model_config = {"extra": "forbid"}


class Timeouts(Strict):
    """Limits on one call of a provider, in seconds."""

    connect: float = Field(5, gt=0)
    first_token: float = Field(60, gt=0)
    idle: float = Field(30, gt=0, description="between two tokens")
    total: float = Field(600, gt=0)


class Model(Strict):
    """One model of a provider. An id with `*` is a pattern that allows every id it matches."""

    id: str = Field(min_length=1)
    upstream: str | None = Field(None, description="the provider's own name for it, if it differs from `id`")
    context_tokens: int = Field(8192, gt=0)
    max_output_tokens: int = Field(1024, gt=0, description="reserved for the answer when the prompt is built")
    price_in: float | None = Field(None, ge=0, description="USD a million prompt tokens")
    price_out: float | None = Field(None, ge=0, description="USD a million completion tokens")
    quality: float | None = Field(None, ge=0, le=1)
    capabilities: list[str] = ["chat"]
    defaults: Parameters = Parameters()
    reset: bool = Field(False, description="after a failure past the first token, start again with `turn.reset`")

    @property
    def is_pattern(self) -> bool:
        return "*" in self.id

    def cost_usd(self, usage: Usage | None) -> float | None:
        """What a reply cost, or None without a price or without counts."""
        if usage is None or self.price_in is None or self.price_out is None:
            return None
        return (usage.prompt_tokens * self.price_in + usage.completion_tokens * self.price_out) / 1e6


class Provider(Strict):
    """Where models are called. Keys are references: Serve shows `user_config` to whoever reads its REST API."""

    name: str = Field(min_length=1)
    kind: ProviderKind = "openai"
    base_url: str | None = None
    key: str | None = Field(None, description="`${NAME}` of an environment variable")
    key_file: str | None = None
    timeouts: Timeouts = Timeouts()
    retries: int = Field(2, ge=0, le=10, description="more tries before the first token")
    max_connections: int = Field(256, gt=0)
    models: list[Model] = []

    @field_validator("key")
    @classmethod
    def only_references(cls, key: str | None) -> str | None:
        if key is not None and not _REFERENCE.match(key):
            raise ValueError("a provider's key stands here only as ${NAME}, or in a file named by key_file")
        return key

    @model_validator(mode="after")
    def hosted_needs_url(self) -> "Provider":
        if self.kind == "openai" and not (self.base_url or "").startswith(("http://", "https://")):
            raise ValueError(f"provider {self.name!r} needs a base_url that starts with http:// or https://")
        return self


class Routing(Strict):
    """How `auto` is served; the fallback chain serves `auto` only."""

    default: str = AUTO
    fallback: list[str] = []
    cost_quality: float = Field(0.5, ge=0, le=1)


BUILT_IN = Provider(name=SCRIPTED, kind=SCRIPTED, models=[Model(id=SCRIPTED, price_in=0, price_out=0)])


class Catalog(Strict):
    """All providers and the routing between their models."""

    providers: list[Provider] = []
    routing: Routing = Routing()

    @model_validator(mode="after")
    def add_built_in(self) -> "Catalog":
        names = [provider.name for provider in self.providers]
        if len(set(names)) < len(names):
            raise ValueError("two providers have the same name")
        if SCRIPTED not in names:
            self.providers = [*self.providers, BUILT_IN]
        return self

    def find(self, model_id: str) -> "Route | None":
        """The provider and model that serve this id: exact names first, then patterns in order; None if not allowed."""
        entries = [(provider, model) for provider in self.providers for model in provider.models]
        for provider, model in entries:
            if model.id == model_id and not model.is_pattern:
                return Route(provider=provider, model=model, id=model_id)
        for provider, model in entries:
            if model.is_pattern and fnmatchcase(model_id, model.id):
                return Route(provider=provider, model=model, id=model_id)
        return None

    def ids(self) -> list[str]:
        """Concrete ids, in order, no patterns."""
        return [model.id for provider in self.providers for model in provider.models if not model.is_pattern]


class Route(BaseModel):
    """An allowed model id with what serves it."""

    provider: Provider
    model: Model
    id: str

    @property
    def upstream(self) -> str:
        return self.model.upstream or self.id


def parse_catalog(user_config: dict[str, Any] | None) -> Catalog:
    """The catalog in a Serve `user_config` or a `--config` file; raises pydantic's ValidationError."""
    return Catalog.model_validate(user_config or {})
