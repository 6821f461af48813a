"""Answers that are not an entity of the domain, for the API's description."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from domain.catalog_merge import Origin
from domain.conversation import Conversation
from domain.message import Message, Usage
from domain.model import Model, Provider, ProviderKind
from domain.model_settings import ModelSettings
from domain.turn import Turn


class TurnAnswer(BaseModel):
    """A turn that was waited for. `message` is null where a cancelled turn kept no text."""

    turn: Turn
    user_message: Message | None
    message: Message | None


class Around(BaseModel):
    before: list[Message]
    after: list[Message]


class MessageInContext(Message):
    """A message; with `?context=N` also up to N messages before and after it, in the order of `seq`."""

    context: Around | None = None


class Deleted(BaseModel):
    id: str
    object: Literal["conversation", "message"]
    deleted: Literal[True] = True


class ToldFact(BaseModel):
    """`seq`: of the user's message that told it."""

    key: str
    value: str
    seq: int


class ConversationSummary(BaseModel):
    """What stands for the messages up to `up_to_seq`. `made_by`: `extractive`, or the model that wrote it."""

    object: Literal["conversation.summary"] = "conversation.summary"
    conversation_id: str
    summary: str
    facts: list[ToldFact]
    up_to_seq: int
    made_by: str
    updated_at: datetime


class ListOf(BaseModel):
    object: Literal["list"] = "list"
    first_id: str | None
    last_id: str | None
    has_more: bool


class ConversationList(ListOf):
    data: list[Conversation]


class MessageList(ListOf):
    data: list[Message]


class Version(Message):
    """A reply, and the id of the one that stands in its place in later prompts."""

    superseded_by: str | None


class VersionList(ListOf):
    data: list[Version]


class PriceList(BaseModel):
    """Prices from a moment on, in USD a million tokens."""

    since: datetime = Field(alias="from")
    price_in: float
    price_out: float
    price_cached: float | None


class ModelCard(BaseModel):
    """A model that may be named in requests. Prices are those that hold now, in USD a million tokens, `prices_from` the
    moment they began where they replaced others; `prices` are all lists with a date, also of days to come.

    `preference`: the tenant's, for `auto`. `healthy`: false while its provider fails and is not called.
    """

    id: str
    object: Literal["model"] = "model"
    provider: str
    kind: ProviderKind
    api: Literal["chat", "responses"]
    context_tokens: int
    max_output_tokens: int
    price_in: float | None
    price_out: float | None
    price_cached: float | None
    prices_from: datetime | None
    prices: list[PriceList]
    capabilities: list[str]
    quality: float | None
    defaults: dict[str, Any]
    preference: float | None
    healthy: bool


class ModelList(ListOf):
    data: list[ModelCard]


class ModelPreference(BaseModel):
    object: Literal["model.preference"] = "model.preference"
    model: str
    weight: float | None


class ModelSettingsAnswer(ModelSettings):
    object: Literal["model_settings"] = "model_settings"
    tenant_id: str


class Distribution(BaseModel):
    p50: float | None
    p95: float | None


class ModelTurns(BaseModel):
    completed: int
    failed: int
    cancelled: int
    total: int


class ModelCalls(BaseModel):
    """`ok`, `error` and `total`: calls for turns. `charged`: calls in the ledger, of these `unkept` for completions
    that nobody keeps and `estimated` where the provider never said what it counted."""

    ok: int
    error: int
    total: int
    charged: int
    unkept: int
    estimated: int


class ModelLatencies(BaseModel):
    """Milliseconds: whole turns, calls for turns, and a call's first token."""

    turn: Distribution
    call: Distribution
    first_token: Distribution


class FailedCalls(BaseModel):
    message: str
    count: int


class ModelMetricsAnswer(BaseModel):
    """What a tenant used of a model from `from` until before `to`. `errors`: the most frequent ones of its calls."""

    object: Literal["model.metrics"] = "model.metrics"
    model: str
    since: datetime = Field(alias="from")
    until: datetime = Field(alias="to")
    turns: ModelTurns
    calls: ModelCalls
    usage: Usage
    cost_usd: float | None
    latency_ms: ModelLatencies
    errors: list[FailedCalls]


class ModelTestAnswer(BaseModel):
    """What a call of the model gave; `ok` is false where it failed, and `error` says why."""

    object: Literal["model.test"] = "model.test"
    ok: bool
    model: str
    provider: str
    first_token_ms: float | None
    total_ms: float
    text: str
    usage: Usage | None
    cost_usd: float | None
    error: dict[str, Any] | None


class RegisteredProvider(Provider):
    """A provider as it stands in the catalog. `origin`: where it comes from; `removed`: an operator has hidden the
    configuration's; `problem`: why the database's entry is left out. `key` is the name of a place, never the key;
    `sealed_key`: whether one is kept sealed."""

    object: Literal["provider"] = "provider"
    sealed_key: bool  # type: ignore[assignment]
    origin: Origin
    version: int
    removed: bool
    problem: str | None


class RegisteredProviders(ListOf):
    data: list[RegisteredProvider]


class RegisteredModel(Model):
    """A model as it stands in the catalog."""

    object: Literal["model"] = "model"
    provider: str
    origin: Origin
    version: int


class Removed(BaseModel):
    id: str
    object: Literal["provider", "model"]
    deleted: bool


class ErasureReceipt(BaseModel):
    """What was removed. `status` is `in_progress` while `pending` says what is on its way: ask again then.

    `signature`: a detached JSON Web Signature (RFC 7515) over the other fields as RFC 8785 writes them; its key is
    published at `/.well-known/receipts.json`.
    """

    object: Literal["erasure_receipt"] = "erasure_receipt"
    id: str
    tenant_id: str
    subject: dict[str, str]
    status: Literal["in_progress", "completed"]
    requested_at: datetime
    completed_at: datetime | None
    removed: dict[str, int]
    pending: dict[str, Any]
    kept: dict[str, dict[str, Any]]
    signature: str


class ReceiptKey(BaseModel):
    kty: Literal["OKP"] = "OKP"
    crv: Literal["Ed25519"] = "Ed25519"
    x: str
    kid: str
    alg: Literal["EdDSA"] = "EdDSA"
    use: Literal["sig"] = "sig"


class ReceiptKeys(BaseModel):
    keys: list[ReceiptKey]
