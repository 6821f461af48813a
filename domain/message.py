"""A message of a conversation, what it cost, and what it was taken to mean."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

Role = Literal["user", "assistant", "system"]
MessageStatus = Literal["completed", "cancelled", "failed"]


class Usage(BaseModel):
    """Tokens of one reply; `cached_tokens` are those of the prompt that the provider had cached."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


def added(usages: Iterable[Usage | None]) -> Usage | None:
    """The sum of those that are known; None where none is."""
    known = [usage for usage in usages if usage is not None]
    if len(known) < 2:
        return known[0] if known else None
    return Usage(**{name: sum(getattr(usage, name) for usage in known) for name in Usage.model_fields})


class Intent(BaseModel):
    """What a message asks for; `confidence` in [0, 1]."""

    name: str
    confidence: float
    parameters: dict[str, Any] = {}


class Message(BaseModel):
    """A message (API.md). `seq` counts the commits of its conversation: 1, 2, 3 … without a gap."""

    id: str
    object: Literal["message"] = "message"
    conversation_id: str
    turn_id: str
    seq: int
    role: Role
    content: str
    status: MessageStatus = "completed"
    model: str | None = None
    intent: Intent | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    citations: list[dict[str, Any]] = []
    metadata: dict[str, Any] = {}
    created_at: datetime
