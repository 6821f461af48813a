"""What a turn needs of models: their generations, their tokenizers, tenants' rules for them, and how they are."""

from typing import Protocol

from domain.context import TokenCounter
from domain.generation import GenerationRequest, Outcome
from domain.model import Model
from domain.model_settings import ModelSettings


class LanguageModel(Protocol):
    """Runs generations. They outlive the call that started them, and the caller."""

    async def generate(self, request: GenerationRequest) -> Outcome:
        """Start or join the generation of this name and wait for its end. Raises `Unavailable` if its process died."""
        ...

    async def cancel(self, request: GenerationRequest) -> None:
        """Close the provider's stream of this generation; it ends as cancelled with the text so far."""
        ...


class TokenCounters(Protocol):
    """Tokenizers of models, as far as this process has them."""

    def counter(self, model: Model) -> TokenCounter:
        """The model's own, or `ESTIMATE` where there is none, or none yet. Does no I/O."""
        ...


class TenantModels(Protocol):
    """Tenants' rules for models, at most a second or two old."""

    async def settings(self, tenant: str) -> ModelSettings:
        """Raises `Unavailable` where they were never read and cannot be now."""
        ...


class Health(Protocol):
    """Which models fail at the moment, as far as this process has heard."""

    def unhealthy(self) -> frozenset[str]:
        """`provider/model` of every model whose circuit breaker is open; costs no I/O."""
        ...
