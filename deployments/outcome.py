"""What an outcome says where the provider said nothing: estimated counts, and an error's body."""

from collections.abc import Sequence
from typing import Any

from domain.context import MESSAGE_OVERHEAD, estimate_tokens
from domain.errors import GenerationError
from domain.message import Usage


def estimate(messages: Sequence[dict[str, Any]], text: str) -> Usage:
    """Token counts where the provider gave none."""
    prompt = sum(estimate_tokens(str(m.get("content") or "")) + MESSAGE_OVERHEAD for m in messages)
    completion = estimate_tokens(text)
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def error_body(error: GenerationError, turn_id: str) -> dict[str, Any]:
    """The body of the API error that a failed turn answers with."""
    return {"message": str(error), "type": error.type, "param": turn_id, "code": error.code}
