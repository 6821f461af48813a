"""What every conversation of a host shares."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domain.context import ESTIMATE, Exchange, TokenCounter
from domain.conversation import ConversationKey
from domain.embedding import Embedding
from domain.model import Catalog, Model
from domain.model_settings import ModelSettings
from domain.ports import (
    Classifier,
    ConversationStore,
    Health,
    Journal,
    LanguageModel,
    Memory,
    TenantModels,
    TenantsSettings,
    TokenCounters,
    Tools,
)
from domain.product_structures import Structures
from domain.products import ProductCatalogue
from domain.tenant_settings import TenantSettings
from domain.tools import Offer, ToolAnswer


class EveryModel:
    """`TenantModels` of a service whose tenants have no rules."""

    async def settings(self, tenant: str) -> ModelSettings:
        return ModelSettings()


class UsualSettings:
    """`TenantsSettings` of a service whose tenants are all the same."""

    async def settings(self, tenant: str) -> TenantSettings:
        return TenantSettings()


class AllHealthy:
    """`Health` of a process that hears of no failures."""

    def unhealthy(self) -> frozenset[str]:
        return frozenset()


class NoMemory:
    """`Memory` of a service that remembers nothing by meaning."""

    async def similar(
        self, key: ConversationKey, user: str, text: str, embedding: Embedding | None, limit: int
    ) -> Sequence[Exchange]:
        return ()


class NoTools:
    """`Tools` of a service whose tenants have none."""

    async def offered(self, tenant: str, user: str | None, turn_id: str) -> Offer:
        return Offer()

    async def call(
        self, tenant: str, server: str, tool: str, arguments: Mapping[str, Any], key: str, seconds: float
    ) -> ToolAnswer:
        return ToolAnswer("failed", "there are no tools here")


class Estimates:
    """`TokenCounters` of a process without tokenizers."""

    def counter(self, model: Model) -> TokenCounter:
        return ESTIMATE


@dataclass(slots=True)
class HostLimits:
    """Bounds of a host. Times in seconds, memory in bytes of message text and bookkeeping."""

    idle: float = 300
    hot_bytes: int = 512 * 1024 * 1024
    mailbox: int = 100
    waiting: int = 20_000
    unfinished: int = 100  # turns of one conversation
    turns: int = 20_000  # of all
    classify_timeout: float = 2.0
    admission: float = 30  # how long an accepted turn waits for a place at its model
    lease: float = 3.0
    context_messages: int = 100
    shadows: int = 4  # shadow answers at once
    summaries: int = 8  # summaries in the making at once
    summary_timeout: float = 60
    recall_timeout: float = 0.3  # how long a turn waits for its memory
    recalled: int = 3  # similar exchanges
    products_timeout: float = 0.8  # how long a turn waits for its products
    products: int = 20  # that a turn is told
    offer_timeout: float = 2.0  # how long a turn waits to learn what it may call
    tool_timeout: float = 20  # of one call
    tool_rounds: int = 6  # generations of a turn that may call tools
    tool_calls: int = 16  # of a turn
    tool_arguments: int = 16_000  # characters
    tool_result: int = 16_000  # characters


@dataclass(slots=True)
class Parts:
    """`catalog` is replaced when the configuration changes; running turns keep what they chose."""

    host: str
    store: ConversationStore
    journal: Journal
    llm: LanguageModel
    classifier: Classifier
    catalog: Catalog
    limits: HostLimits
    models: TenantModels = field(default_factory=EveryModel)
    health: Health = field(default_factory=AllHealthy)
    memory: Memory = field(default_factory=NoMemory)
    counters: TokenCounters = field(default_factory=Estimates)
    tenants: TenantsSettings = field(default_factory=UsualSettings)
    products: ProductCatalogue | None = None
    structures: Structures = field(init=False)
    tools: Tools = field(default_factory=NoTools)
    waiting: int = 0  # messages in all mailboxes
    shadows: set[asyncio.Task[None]] = field(default_factory=set)
    summaries: set[asyncio.Task[None]] = field(default_factory=set)
    endings: set[asyncio.Task[None]] = field(default_factory=set)  # of what was cut off of both: to be charged for

    def __post_init__(self) -> None:
        self.structures = Structures(self.products)

    @property
    def has_tools(self) -> bool:
        """Whether turns may call tools at all."""
        return not isinstance(self.tools, NoTools)

    def recalls(self, user: str | None) -> bool:
        """Whether a turn of this user's looks up what was said before."""
        return user is not None and not isinstance(self.memory, NoMemory)
