"""The bodies of the OpenAI-compatible API. Unknown fields are ignored, and none reaches a provider unchecked."""

from typing import Any, Literal

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer

from domain.turn import Parameters
from serve_app.ingress.errors import Problem
from serve_app.ingress.openai_messages import ChatMessage, Shaped, plain, refuse_kept, shaped
from serve_app.ingress.openai_tools import MOST_TOOLS, NamedFunction, ResponseFormat, Tool, ToolChoice

LONGEST = 32_000  # characters of a message that a conversation keeps


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
    tools: list[Tool] | None = Field(None, max_length=MOST_TOOLS)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    functions: Any = Field(None, description="refused: use `tools`")
    function_call: Any = Field(None, description="refused: use `tool_choice`")

    def parameters(self) -> dict[str, Any]:
        """What was given of `Parameters`, and the format of the answer."""
        given = Parameters(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            stop=self.stop,
            seed=self.seed,
        ).model_dump(exclude_none=True)
        if self.wants_json and self.response_format is not None:
            given["response_format"] = self.response_format.model_dump(exclude_none=True)
        return given

    def tool_parameters(self) -> dict[str, Any]:
        """The tools and how they may be called. Raises `Problem` 400 where that does not fit together."""
        self._check_tools()
        if not self.tools:
            return {}
        given: dict[str, Any] = {"tools": [tool.model_dump(exclude_none=True) for tool in self.tools]}
        if isinstance(self.tool_choice, NamedFunction):
            given["tool_choice"] = self.tool_choice.model_dump()
        elif self.tool_choice is not None:
            given["tool_choice"] = self.tool_choice
        if self.parallel_tool_calls is not None:
            given["parallel_tool_calls"] = self.parallel_tool_calls
        return given

    @property
    def wants_json(self) -> bool:
        return self.response_format is not None and self.response_format.type != "text"

    def shaped_messages(self) -> list[Shaped]:
        """The messages as models are told them. Raises `Problem` 400."""
        return shaped(self.messages)

    def plain_messages(self) -> list[dict[str, str]]:
        """The messages with their text alone, for a conversation. Raises `Problem` 400 for what it cannot keep."""
        for name in ("tools", "tool_choice", "functions", "function_call"):
            if getattr(self, name):
                refuse_kept(name, "tools")
        return plain(self.messages)

    def _check_tools(self) -> None:
        for old, new in (("functions", "tools"), ("function_call", "tool_choice")):
            if getattr(self, old) is not None:
                raise Problem(400, f"{old}: is not supported; use {new}", old)
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise Problem(400, "tools: two functions have the same name", "tools")
        for name in ("tool_choice", "parallel_tool_calls"):
            if getattr(self, name) not in (None, "none", "auto") and not names:
                raise Problem(400, f"{name}: is only allowed with tools", name)
        if isinstance(self.tool_choice, NamedFunction) and self.tool_choice.function.name not in names:
            raise Problem(400, "tool_choice: names no function of tools", "tool_choice")

    @model_serializer(mode="wrap")
    def _as_it_always_was(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Bodies are compared by this: fields that came later are left out where they were not given."""
        body: dict[str, Any] = serialize(self)
        for name in ("tools", "tool_choice", "parallel_tool_calls", "response_format", "functions", "function_call"):
            if body.get(name) is None:
                body.pop(name, None)
        for message in body.get("messages", ()):
            for name in ("refusal", "tool_calls", "tool_call_id"):
                if message.get(name) is None:
                    message.pop(name, None)
        return body


class EmbeddingCreate(BaseModel):
    """What `POST /v1/embeddings` heeds."""

    model: str = Field(min_length=1, max_length=256)
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)
