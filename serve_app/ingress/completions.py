"""Answers in the shape of OpenAI's chat completions, whole and in chunks."""

import time
from typing import Any

import orjson

from domain.message import Usage
from serve_app.ingress.shapes import error_json
from serve_app.ingress.sse import data

DONE = b"data: [DONE]\n\n"


class Completion:
    """One completion; `created` in unix seconds. `sent` counts the characters that its chunks have carried."""

    def __init__(self, turn_id: str, model: str, created: float | None = None, with_usage: bool = False) -> None:
        self._id = "chatcmpl-" + turn_id.removeprefix("turn_")
        self._created = int(time.time() if created is None else created)
        self._model, self._with_usage = model, with_usage
        self.sent = 0
        self._template()

    def named(self, model: str | None) -> None:
        """The model that answers, once it is chosen."""
        if model and model != self._model:
            self._model = model
            self._template()

    def whole(self, text: str, finish_reason: str, usage: Usage | None) -> dict[str, Any]:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        return {**self._head("chat.completion"), "choices": [choice], "usage": _usage(usage)}

    def opening(self) -> bytes:
        return self._chunk([_choice({"role": "assistant", "content": ""}, None)], None)

    def delta(self, text: str) -> bytes:
        self.sent += len(text)
        return self._before + orjson.dumps(text) + self._after

    def closing(self, text: str, finish_reason: str, usage: Usage | None) -> bytes:
        """What of `text` no delta has carried, and the end."""
        rest = text[self.sent :]
        end = (self.delta(rest) if rest else b"") + self._chunk([_choice({}, finish_reason)], None)
        if self._with_usage:
            end += self._chunk([], _usage(usage))
        return end + DONE

    def failure(self, error: dict[str, Any]) -> bytes:
        return data({"error": error_json(error)})

    def _template(self) -> None:
        rendered = self._chunk([_choice({"content": "\0"}, None)], None)
        self._before, _, self._after = rendered.partition(b'"\\u0000"')

    def _chunk(self, choices: list[Any], usage: Any) -> bytes:
        chunk = {**self._head("chat.completion.chunk"), "choices": choices}
        if self._with_usage:
            chunk["usage"] = usage
        return data(chunk)

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}


def _choice(delta: dict[str, str], finish_reason: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
