"""What the mock provider does for a model name, and what it says: known tokens, so that a client can check each.

A model name is `mock` and options: `mock,n=64,ttft=20,itl=10,fault=cut,at=5`. Times are milliseconds.

n         tokens of a reply (16)
ttft      delay before the first token (0)
itl       delay between two tokens (0)
tools     after its text it calls this many of the tools that were offered, each with the user's message as its
          argument `asked`; once a tool has answered last, it calls none (0)
mode      what is said: `tokens` (default, see `reply_tokens`), `echo` the last user message, `count` the number of
          messages in the prompt, `prompt` the messages as JSON
fault     one of FAULTS
at        tokens that are sent before the fault (0)
status    the HTTP error of fault=status (500); alone it implies that fault
retry_after   the value of the Retry-After header, in seconds
times     the fault happens this many times, then calls succeed (always)
per       what `times` counts: calls of this `model` name (default), or of each user `message`
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import orjson

FAULTS = frozenset(
    {
        "status",  # an HTTP error
        "leak",  # 401 whose text repeats the Authorization header
        "html",  # 200 with a page in it
        "hang_before",  # accepts the call and sends nothing
        "hang_after",  # sends `at` tokens and then nothing
        "malformed",  # a broken JSON object after `at` tokens; then goes on
        "cut",  # connection reset after `at` tokens
        "truncate",  # clean end after `at` tokens, without finish_reason
        "error_event",  # an error object after `at` tokens
        "no_done",  # complete, but without [DONE]
        "no_usage",  # complete, but without usage
        "ignore_stream",  # one JSON body although a stream was asked for
    }
)
FIELDS = frozenset(
    {"model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens", "max_completion_tokens"}
    | {"stop", "seed", "n", "user", "tools", "tool_choice", "parallel_tool_calls", "response_format"}
    | {"presence_penalty", "frequency_penalty"}
)
ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_PIECES = re.compile(r"\s*\S+|\s+$")


@dataclass(frozen=True, slots=True)
class Spec:
    """The options of a model name, as above."""

    n: int = 16
    ttft: float = 0
    itl: float = 0
    tools: int = 0
    mode: str = "tokens"
    fault: str = ""
    at: int = 0
    status: int = 0
    retry_after: str = ""
    times: int = 0
    per: str = "model"


@lru_cache(maxsize=1024)
def parse_model(model: str) -> Spec:
    """The behaviour that a model name asks for; raises ValueError for an option or a value that does not exist."""
    values: dict[str, Any] = {}
    types = {field.name: field.type for field in fields(Spec)}
    for option in model.split(",")[1:]:
        name, _, value = option.partition("=")
        if name not in types:
            raise ValueError(f"unknown option {name!r} in the model name")
        values[name] = types[name](value)  # type: ignore[operator]
    if values.get("status") and "fault" not in values:
        values["fault"] = "status"
    spec = Spec(**values)
    if (spec.fault and spec.fault not in FAULTS) or spec.mode not in ("tokens", "echo", "count", "prompt"):
        raise ValueError(f"unknown fault or mode in {model!r}")
    return spec


def last_user_message(messages: Sequence[dict[str, Any]]) -> str:
    content = next((m.get("content") for m in reversed(messages) if m.get("role") == "user"), "")
    return content if isinstance(content, str) else orjson.dumps(content).decode()


def reply_tokens(message: str, n: int) -> list[str]:
    """`[1a2b3c4d] t1 t2 …`: the first token names the message, each other its place."""
    seed = hashlib.sha256(message.encode()).hexdigest()[:8]
    return [f"[{seed}]", *(f" t{i}" for i in range(1, n))][:n]


def tokens_of(spec: Spec, messages: Sequence[dict[str, Any]], max_tokens: int | None) -> tuple[list[str], str]:
    """The reply's tokens, after what a last message of the assistant has said already, and its finish_reason."""
    message = last_user_message(messages)
    match spec.mode:
        case "echo":
            tokens = _PIECES.findall(message)
        case "count":
            tokens = [str(len(messages))]
        case "prompt":
            tokens = _PIECES.findall(orjson.dumps(messages).decode())
        case _:
            tokens = reply_tokens(message, spec.n)
    tokens = after(said_already(messages), tokens)
    if max_tokens is not None and len(tokens) > max_tokens:
        return tokens[:max_tokens], "length"
    return tokens, "stop"


def said_already(messages: Sequence[dict[str, Any]]) -> str:
    """The last message where it is the assistant's: the reply goes on after it."""
    content = messages[-1].get("content")
    return content if messages[-1]["role"] == "assistant" and isinstance(content, str) else ""


def after(said: str, tokens: list[str]) -> list[str]:
    """The tokens that follow this text; all of them where the reply does not begin with it."""
    for number in range(len(tokens) + 1):
        if "".join(tokens[:number]) == said:
            return tokens[number:]
    return tokens


def calls_of(spec: Spec, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The tool calls that end the reply."""
    messages = body["messages"]
    asked = messages[:-1] if messages[-1]["role"] == "assistant" else messages  # without what it goes on from
    offered = [] if asked and asked[-1]["role"] == "tool" else body.get("tools") or []
    arguments = orjson.dumps({"asked": last_user_message(messages)}).decode()
    return [
        {"id": f"call_{i}", "type": "function", "function": {"name": tool["function"]["name"], "arguments": arguments}}
        for i, tool in enumerate(offered[: spec.tools])
    ]


def check(body: Any) -> Spec:
    """The behaviour that a body asks for; ValueError where it is not a proper request."""
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")
    if unknown := sorted(body.keys() - FIELDS):
        raise ValueError(f"Unrecognized request argument supplied: {', '.join(unknown)}")
    if not isinstance(body.get("model"), str):
        raise ValueError("you must provide a model parameter")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError("'messages' must be a list that is not empty")
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise ValueError("each message needs a known role")
        called = message["role"] == "assistant" and message.get("tool_calls") and message.get("content") is None
        if not isinstance(message.get("content"), str | list) and not called:
            raise ValueError("each message needs content")
    return parse_model(body["model"])
