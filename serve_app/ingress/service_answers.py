"""Further answers for the API's description: of the service itself, of turns' traces, and in OpenAI's shapes."""

from typing import Any, Literal

from pydantic import BaseModel


class HealthAnswer(BaseModel):
    status: Literal["ok"]
    version: str


class LiveAnswer(BaseModel):
    status: Literal["ok"]


class LastError(BaseModel):
    message: str
    at: str


class Component(BaseModel):
    status: Literal["ok", "down"]
    latency_ms: float
    last_error: LastError | None


class DetailedHealth(BaseModel):
    status: Literal["ok", "degraded"]
    version: str
    components: dict[str, Component]


class FeedbackRemoved(BaseModel):
    message_id: str
    object: Literal["message.feedback"]
    deleted: bool


class TraceAnswer(BaseModel):
    """Empty while the turn runs."""

    model_config = {"extra": "allow"}

    turn_id: str
    intent: dict[str, Any] | None
    candidates: list[dict[str, Any]]
    chosen: str | None
    reason: str | None
    attempts: list[dict[str, Any]]


class OpenAIModel(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIModelList(BaseModel):
    object: Literal["list"]
    data: list[OpenAIModel]


class OneEmbedding(BaseModel):
    """`embedding`: numbers, or with `encoding_format: base64` their float32 bytes."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    object: Literal["list"]
    data: list[OneEmbedding]
    model: str
    usage: EmbeddingUsage
