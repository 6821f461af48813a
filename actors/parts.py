"""What every conversation of a host shares."""

from dataclasses import dataclass

from domain.model import Catalog
from domain.ports import Classifier, ConversationStore, Journal, LanguageModel


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
    waiting: int = 0  # messages in all mailboxes
