"""Answers that are not an entity of the domain, for the API's description."""

from typing import Any, Literal

from pydantic import BaseModel

from domain.conversation import Conversation
from domain.message import Message
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


class ListOf(BaseModel):
    object: Literal["list"] = "list"
    first_id: str | None
    last_id: str | None
    has_more: bool


class ConversationList(ListOf):
    data: list[Conversation]


class MessageList(ListOf):
    data: list[Message]


class ModelCard(BaseModel):
    """A model that may be named in requests. Prices: USD a million tokens."""

    id: str
    object: Literal["model"] = "model"
    provider: str
    context_tokens: int
    price_in: float | None
    price_out: float | None
    capabilities: list[str]
    quality: float | None
    defaults: dict[str, Any]


class ModelList(ListOf):
    data: list[ModelCard]
