"""Answers in the shape of OpenAI's chat completions, whole and in chunks."""

import time
from collections.abc import Sequence
from typing import Any

import orjson

from domain.message import Usage
from serve_app.ingress.shapes import error_json
from serve_app.ingress.sse import data

DONE = b"data: [DONE]\n\n"


class Completion:
    """One completion; `created` in unix seconds. `sent` counts the characters of text that its chunks have carried."""

    def __init__(self, turn_id: str, model: str, created: float | None = None, with_usage: bool = False) -> None:
        self._id = "chatcmpl-" + turn_id.removeprefix("turn_")
        self._created = int(time.time() if created is None else created)
        self._model, self._with_usage = model, with_usage
        self.sent = 0
        self._called: dict[int, int] = {}  # index of a tool call -> characters of its arguments that were carried
        self._template()

    def named(self, model: str | None) -> None:
        """The model that answers, once it is chosen."""
        if model and model != self._model:
            self._model = model
            self._template()

    def whole(
        self, text: str, finish_reason: str, usage: Usage | None, calls: Sequence[dict[str, Any]] = ()
    ) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if calls:
            message |= {"content": text or None, "tool_calls": list(calls)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head("chat.completion"), "choices": [choice], "usage": _usage(usage)}

    def opening(self) -> bytes:
        return self._chunk([_choice({"role": "assistant", "content": ""}, None)], None)

    def delta(self, text: str) -> bytes:
        self.sent += len(text)
        return self._before + orjson.dumps(text) + self._after

    def call_deltas(self, deltas: Sequence[dict[str, Any]]) -> bytes:
        """Deltas of tool calls, in the shape that OpenAI streams them in."""
        for delta in deltas:
            index, arguments = delta["index"], delta["function"].get("arguments") or ""
            self._called[index] = self._called.get(index, 0) + len(arguments)
        return self._chunk([_choice({"tool_calls": list(deltas)}, None)], None)

    def closing(
        self, text: str, finish_reason: str, usage: Usage | None, calls: Sequence[dict[str, Any]] = ()
    ) -> bytes:
        """What of `text` and `calls` no delta has carried, and the end."""
        rest = text[self.sent :]
        end = self.delta(rest) if rest else b""
        if uncalled := self._uncalled(calls):
            end += self.call_deltas(uncalled)
        end += self._chunk([_choice({}, finish_reason)], None)
        if self._with_usage:
            end += self._chunk([], _usage(usage))
        return end + DONE

    def failure(self, error: dict[str, Any]) -> bytes:
        return data({"error": error_json(error)})

    def _uncalled(self, calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        deltas = []
        for index, call in enumerate(calls):
            arguments = call["function"]["arguments"]
            if index not in self._called:
                deltas.append({"index": index, **call})
            elif rest := arguments[self._called[index] :]:
                deltas.append({"index": index, "function": {"arguments": rest}})
        return deltas

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


def _choice(delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
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
