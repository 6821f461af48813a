"""A conversation, as it is stored and as the outside sees it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from domain.carried import carried

ConversationStatus = Literal["active", "ended"]


@carried
@dataclass(frozen=True, slots=True)
class ConversationKey:
    """Names one conversation; the tenant is part of every name."""

    tenant: str
    conversation: str

    @property
    def session(self) -> str:
        """The routing key: calls with equal sessions reach the same host while the set of hosts stands."""
        return f"{self.tenant}:{self.conversation}"


class Conversation(BaseModel):
    """A conversation (API.md); `message_count` counts the messages that can be read."""

    id: str
    object: Literal["conversation"] = "conversation"
    tenant_id: str
    user_id: str | None = None
    title: str | None = None
    status: ConversationStatus = "active"
    metadata: dict[str, Any] = {}
    system_prompt: str | None = None
    message_count: int = 0
    created_at: datetime
    updated_at: datetime
