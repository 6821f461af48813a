"""What every conversation of a host shares."""

import asyncio
from dataclasses import dataclass, field

from domain.model import Catalog
from domain.model_settings import ModelSettings
from domain.ports import Classifier, ConversationStore, Health, Journal, LanguageModel, TenantModels


class EveryModel:
    """`TenantModels` of a service whose tenants have no rules."""

    async def settings(self, tenant: str) -> ModelSettings:
        return ModelSettings()


class AllHealthy:
    """`Health` of a process that hears of no failures."""

    def unhealthy(self) -> frozenset[str]:
        return frozenset()


@dataclass(slots=True)
class HostLimits:
    """Bounds of a host. Times in seconds, memory in bytes of message text and bookkeeping."""

    idle: float = 300
    hot_bytes: int = 512 * 1024 * 1024
    mailbox: int = 100
    waiting: int = 20_000
    unfinished: int = 100
    classify_timeout: float = 2.0
    admission: float = 30  # how long an accepted turn waits for a place at its model
    lease: float = 3.0
    context_messages: int = 100
    shadows: int = 4  # shadow answers at once


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
    waiting: int = 0  # messages in all mailboxes
    shadows: set[asyncio.Task[None]] = field(default_factory=set)
