"""A wire's side of a test: a route to a double, a request, and what was heard."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from deployments.providers import Piece, ProviderFailure
from deployments.providers.reading import merged
from domain.generation import GenerationRequest
from domain.message import Usage
from domain.model import Model, Provider, Route

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"n": {"type": "integer"}},
            "required": ["n"],
            "additionalProperties": False,
        },
    },
}
CALLED = [
    {"role": "user", "content": "What is the weather?"},
    {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Ulm"}'}},
            {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": ""}},
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "sun"}]},
    {"role": "user", "content": "So?"},
]


def route_to(url: str, kind: Any = "openai", key: str | None = "${DOUBLE_KEY}", **model: Any) -> Route:
    """`DOUBLE_KEY` must hold the double's key."""
    provider = Provider(name="double", kind=kind, base_url=url, key=key)
    return Route(provider=provider, model=Model(id="m", upstream="up", **model), id="m")


def asking(content: Any = "hello", **fields: Any) -> GenerationRequest:
    messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
    return GenerationRequest("ten_1", "turn_1", 1, "m", messages, **fields)


@dataclass
class Heard:
    text: str = ""
    finish: str | None = None
    usage: Usage | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    failure: ProviderFailure | None = None

    @property
    def tools(self) -> list[tuple[str, str, str]]:
        """(id, name, arguments) of each call."""
        whole = merged(self.calls)
        return [(one["id"], one["function"]["name"], one["function"]["arguments"]) for one in whole]


async def hear(pieces: AsyncIterator[Piece]) -> Heard:
    """Everything up to the end or the failure."""
    heard = Heard()
    try:
        async for piece in pieces:
            heard.pieces.append(piece)
            heard.text += piece.text
            heard.finish = piece.finish_reason or heard.finish
            heard.usage = piece.usage or heard.usage
            heard.calls += piece.tool_calls
    except ProviderFailure as failure:
        heard.failure = failure
    return heard
