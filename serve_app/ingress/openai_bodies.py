"""The bodies of the OpenAI-compatible API. Unknown fields are ignored, and none reaches a provider unchecked."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from domain.turn import Parameters
from serve_app.ingress.errors import Problem

LONGEST = 32_000  # characters of a message that a conversation keeps


class ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None


class StreamOptions(BaseModel):
    include_usage: bool | None = None


class ChatCompletion(BaseModel):
    """What `POST /v1/chat/completions` heeds."""

    model: str = Field(min_length=1, max_length=256)
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    max_completion_tokens: int | None = Field(None, ge=1, le=1_000_000)
    stop: str | list[str] | None = None
    seed: int | None = None
    n: Literal[1] | None = None
    metadata: dict[str, Any] | None = None

    def parameters(self) -> dict[str, Any]:
        """The known parameters that were given, as the domain names them."""
        return Parameters(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            stop=self.stop,
            seed=self.seed,
        ).model_dump(exclude_none=True)

    def plain_messages(self) -> list[dict[str, str]]:
        """The messages with their text alone. Raises `Problem` 400 for what is not text."""
        return [_plain(index, message) for index, message in enumerate(self.messages)]


class EmbeddingCreate(BaseModel):
    """What `POST /v1/embeddings` heeds."""

    model: str = Field(min_length=1, max_length=256)
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)


def _plain(index: int, message: ChatMessage) -> dict[str, str]:
    where = f"messages.{index}"
    role = "system" if message.role == "developer" else message.role
    if role not in ("system", "user", "assistant"):
        raise Problem(400, f"{where}.role: messages of the role {role!r} are not supported", f"{where}.role")
    if isinstance(message.content, str):
        return {"role": role, "content": message.content}
    texts = []
    for part in message.content or [{}]:
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise Problem(400, f"{where}.content: only text is supported", f"{where}.content")
        texts.append(part["text"])
    return {"role": role, "content": "".join(texts)}
