"""Models, their providers and the routing between them: the shape of `--config` files and of Serve's `user_config`."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field, PrivateAttr, field_validator, model_validator

from domain.local_model import VllmOptions
from domain.message import Usage
from domain.turn import Parameters

AUTO = "auto"
SCRIPTED = "scripted"
ProviderKind = Literal["openai", "anthropic", "vllm", "scripted"]
_DAY = re.compile(r"^\d{4}-\d{2}-\d{2}$")
_REFERENCE = re.compile(r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$")


class Strict(BaseModel):
    model_config = {"extra": "forbid"}


class Timeouts(Strict):
    """Limits on one call of a provider, in seconds."""

    connect: float = Field(5, gt=0)
    first_token: float = Field(60, gt=0)
    idle: float = Field(30, gt=0, description="between two tokens")
    total: float = Field(600, gt=0)


class Breaker(Strict):
    """When calls of a model stop after failures, and when one of them tries again. Times in seconds."""

    failures: int = Field(5, ge=1, description="in a row, or half of all calls, within `window`")
    window: float = Field(30, gt=0)
    open: float = Field(10, gt=0, description="until a single probe may try")


class Prices(Strict):
    """What a model costs from a moment on, in USD a million tokens."""

    since: AwareDatetime = Field(alias="from")
    price_in: float = Field(ge=0)
    price_out: float = Field(ge=0)
    price_cached: float | None = Field(None, ge=0, description="of prompt tokens that the provider had cached")

    @field_validator("since", mode="before")
    @classmethod
    def day_begins_in_utc(cls, since: Any) -> Any:
        return f"{since}T00:00:00Z" if isinstance(since, str) and _DAY.match(since) else since


class Model(Strict):
    """One model of a provider. An id with `*` is a pattern that allows every id it matches."""

    id: str = Field(min_length=1)
    upstream: str | None = Field(None, description="the provider's own name for it, if it differs from `id`")
    context_tokens: int = Field(8192, gt=0)
    max_output_tokens: int = Field(1024, gt=0, description="reserved for the answer when the prompt is built")
    price_in: float | None = Field(None, ge=0, description="USD a million prompt tokens")
    price_out: float | None = Field(None, ge=0, description="USD a million completion tokens")
    price_cached: float | None = Field(None, ge=0, description="USD a million cached prompt tokens, else `price_in`")
    prices: list[Prices] = Field([], description="later price lists; each holds from its date on")
    quality: float | None = Field(None, ge=0, le=1)
    capabilities: list[str] = ["chat"]
    defaults: Parameters = Parameters()
    api: Literal["chat", "responses"] = Field("chat", description="of an `openai` provider: which of its two APIs")
    tokenizer: str | None = Field(None, description="folder or tokenizer.json that counts where the provider does not")
    concurrency: int | None = Field(None, gt=0, description="calls at once in one replica; else the provider's bound")
    hedge: bool = Field(False, description="ask a second time when the first token is later than usual")
    continues: bool = Field(False, description="after a failure past the first token, go on from the partial text")
    reattach: bool = Field(False, description="`responses` only: run in the background and re-attach to a lost stream")
    reset: bool = Field(False, description="after a failure past the first token, start again with `turn.reset`")
    vllm: VllmOptions | None = Field(None, description="of a `vllm` provider: how this service runs it")

    @model_validator(mode="after")
    def one_way_to_go_on(self) -> "Model":
        if self.api == "responses" and self.continues:
            raise ValueError("a model of the Responses API cannot be prompted with a partial text: use `reattach`")
        if self.reattach and self.api != "responses":
            raise ValueError("`reattach` needs `api: responses`")
        return self

    @property
    def is_pattern(self) -> bool:
        return "*" in self.id

    def answer_tokens(self, wanted: int | None = None) -> int:
        """Tokens of the longest answer: what is asked for, else the default, else `max_output_tokens`."""
        return min(wanted or self.defaults.max_tokens or self.max_output_tokens, self.context_tokens)

    def priced(self, when: datetime | None = None) -> "Prices | None":
        """The prices that hold at `when` (now); None where the model has none."""
        when = when or datetime.now(UTC)
        for prices in sorted(self.prices, key=lambda one: one.since, reverse=True):
            if prices.since <= when:
                return prices
        if self.price_in is None or self.price_out is None:
            return None
        return Prices.model_construct(
            since=datetime.min.replace(tzinfo=UTC),
            price_in=self.price_in,
            price_out=self.price_out,
            price_cached=self.price_cached,
        )

    def cost_usd(self, usage: Usage | None, when: datetime | None = None) -> Decimal | None:
        """What these tokens cost, exactly, by the prices that held at `when`; None without a price or counts."""
        prices = self.priced(when)
        if usage is None or prices is None:
            return None
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        full, reduced, out = (
            Decimal(str(price))
            for price in (
                prices.price_in,
                prices.price_in if prices.price_cached is None else prices.price_cached,
                prices.price_out,
            )
        )
        return ((usage.prompt_tokens - cached) * full + cached * reduced + usage.completion_tokens * out) / 1_000_000


def is_reference(key: str) -> bool:
    """Whether it is `${NAME}`, and no key itself."""
    return _REFERENCE.match(key) is not None


class Provider(Strict):
    """Where models are called. Keys are references: Serve shows `user_config` to whoever reads its REST API."""

    name: str = Field(min_length=1)
    kind: ProviderKind = "openai"
    base_url: str | None = None
    key: str | None = Field(None, description="`${NAME}` of an environment variable")
    key_file: str | None = None
    sealed_key: dict[str, str] | None = Field(None, description="of a registered provider: its key, under a master key")
    timeouts: Timeouts = Timeouts()
    retries: int = Field(2, ge=0, le=10, description="more tries before the first token")
    max_connections: int = Field(256, gt=0, description="calls at once in one replica")
    max_waiting: int = Field(2048, ge=0, description="calls that may wait for one of them, over all tenants")
    breaker: Breaker = Breaker()
    models: list[Model] = []
    _opened: str | None = PrivateAttr(None)

    @field_validator("key")
    @classmethod
    def only_references(cls, key: str | None) -> str | None:
        if key is not None and not is_reference(key):
            raise ValueError("a provider's key stands here only as ${NAME}, or in a file named by key_file")
        return key

    @property
    def opened_key(self) -> str | None:
        """What `sealed_key` holds, in a process that calls the provider; in no dump and no `repr`."""
        return self._opened

    def open_with(self, key: str | None) -> None:
        self._opened = key

    @property
    def seal_name(self) -> str:
        """What a sealed key is bound to: it opens for no other provider and is sent to no other address."""
        return f"provider-key:{self.name}:{self.base_url}"

    @model_validator(mode="after")
    def hosted_needs_url(self) -> "Provider":
        if self.kind in ("openai", "anthropic") and not (self.base_url or "").startswith(("http://", "https://")):
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
