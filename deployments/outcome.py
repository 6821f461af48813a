"""What an outcome says of all the calls that led to it."""

from collections.abc import Sequence
from typing import Any

from domain.errors import BrainError
from domain.generation import Attempt
from domain.message import Usage


def charged(attempts: Sequence[Attempt]) -> tuple[Usage | None, bool]:
    """The usage of the reply, over all calls that it was made of, and whether any part of it is estimated."""
    parts = [attempt for attempt in attempts if attempt.reply and attempt.usage is not None]
    if not parts:
        return None, False
    usages = [attempt.usage for attempt in parts if attempt.usage is not None]
    if len(usages) == 1:
        return usages[0], parts[0].estimated
    fields = {name: sum(getattr(usage, name) for usage in usages) for name in Usage.model_fields}
    return Usage(**fields), any(attempt.estimated for attempt in parts)


def merge_tool_calls(calls: dict[int, dict[str, Any]], deltas: Sequence[dict[str, Any]]) -> None:
    """Take deltas of tool calls, in the shape of OpenAI's chat stream, into `calls`, by their index."""
    for delta in deltas:
        call = calls.setdefault(
            int(delta.get("index", 0)), {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        call["id"] = delta.get("id") or call["id"]
        function = delta.get("function") or {}
        call["function"]["name"] = function.get("name") or call["function"]["name"]
        call["function"]["arguments"] += function.get("arguments") or ""


def error_body(error: BrainError, turn_id: str) -> dict[str, Any]:
    """The body of the API error that a failed turn answers with."""
    return {"message": str(error), "type": error.type, "param": turn_id, "code": error.code}
