"""The messages of a chat completion: what they may hold, and the shape in which models are told them."""

import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, Field

from domain.context import MESSAGE_OVERHEAD, estimate_tokens
from serve_app.ingress.errors import Problem
from serve_app.ingress.openai_tools import MOST_TOOLS, ToolCall

MOST_IMAGES, LONGEST_URL = 50, 8192  # of one request; characters of an address
IMAGE_TOKENS = 1000  # an estimate: about what a picture of a megapixel costs at OpenAI and Anthropic
_ADDRESS = re.compile(r"https?://[^\s/?#]+[^\s]*", re.IGNORECASE)
_DATA = re.compile(r"data:image/(?:png|jpe?g|gif|webp);base64,(?:[A-Za-z0-9+/]{4})*[A-Za-z0-9+/]{2}[A-Za-z0-9+/=]{2}")

Shaped = dict[str, Any]


class ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = Field(None, max_length=MOST_TOOLS)
    tool_call_id: str | None = Field(None, min_length=1, max_length=256)

    @property
    def of_tools(self) -> bool:
        return self.role == "tool" or bool(self.tool_calls)


def shaped(messages: list[ChatMessage]) -> list[Shaped]:
    """The messages with their known fields alone. Raises `Problem` 400 for what no model can be told."""
    told = [_shaped(index, message) for index, message in enumerate(messages)]
    _check_calls(told)
    if sum(1 for _ in images(told)) > MOST_IMAGES:
        raise Problem(400, f"messages: at most {MOST_IMAGES} images", "messages")
    return told


def plain(messages: list[ChatMessage]) -> list[dict[str, str]]:
    """The messages with their text alone, for a conversation. Raises `Problem` 400 for anything else."""
    told = []
    for index, message in enumerate(messages):
        if message.of_tools:
            refuse_kept(f"messages.{index}", "messages of tools")
        one = _shaped(index, message)
        if not isinstance(one["content"], str):
            refuse_kept(f"messages.{index}.content", "images")
        told.append(one)
    return told


def refuse_kept(param: str, what: str) -> None:
    words = f"{param}: {what} are not supported with a conversation; leave out x-conversation-id"
    raise Problem(400, words, param, "unsupported_with_conversation")


def images(told: list[Shaped]) -> Iterator[tuple[str, str]]:
    """Where each image stands, and its address."""
    for index, message in enumerate(told):
        for part in message["content"] if isinstance(message["content"], list) else ():
            if part["type"] == "image_url":
                yield f"messages.{index}.content", part["image_url"]["url"]


def text_of(message: Shaped) -> str:
    content = message["content"] or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def asked(told: list[Shaped]) -> str:
    """The text of the user's last message."""
    return next((text_of(message) for message in reversed(told) if message["role"] == "user"), "")


def tokens(told: list[Shaped]) -> int:
    """What the prompt takes, roughly."""
    count = sum(MESSAGE_OVERHEAD + estimate_tokens(text_of(message)) for message in told)
    calls = (call["function"]["arguments"] for message in told for call in message.get("tool_calls", ()))
    return count + sum(map(estimate_tokens, calls)) + IMAGE_TOKENS * sum(1 for _ in images(told))


def _shaped(index: int, message: ChatMessage) -> Shaped:
    where = f"messages.{index}"
    role = "system" if message.role == "developer" else message.role
    if role == "function":
        raise Problem(400, f"{where}.role: messages of the role 'function' are not supported", f"{where}.role")
    if (message.tool_calls and role != "assistant") or (message.tool_call_id and role != "tool"):
        raise Problem(400, f"{where}: only an assistant calls tools, and only a tool answers", where)
    content: Any = message.content
    if content is None and message.refusal:
        content = message.refusal
    told: Shaped = {"role": role, "content": None}
    if content is not None or not message.tool_calls:
        told["content"] = content if isinstance(content, str) else _parts(where, role, content or [])
    if message.tool_calls:
        told["tool_calls"] = [call.model_dump() for call in message.tool_calls]
    if role == "tool":
        if message.tool_call_id is None:
            raise Problem(400, f"{where}.tool_call_id: is required", f"{where}.tool_call_id")
        told["tool_call_id"] = message.tool_call_id
    return told


def _parts(where: str, role: str, parts: list[dict[str, Any]]) -> str | list[Shaped]:
    """One text where all parts are texts, else the parts."""
    told = [_part(f"{where}.content", role, part) for part in parts]
    if not told:
        raise Problem(400, f"{where}.content: must not be empty", f"{where}.content")
    return "".join(part["text"] for part in told) if all(part["type"] == "text" for part in told) else told


def _part(where: str, role: str, part: dict[str, Any]) -> Shaped:
    kind = part.get("type")
    text = part.get("refusal") if kind == "refusal" and role == "assistant" else part.get("text")
    if kind in ("text", "refusal") and isinstance(text, str):
        return {"type": "text", "text": text}
    if kind != "image_url":
        raise Problem(400, f"{where}: only texts and images are supported", where)
    if role != "user":
        raise Problem(400, f"{where}: only a user's message may hold images", where)
    image = part.get("image_url")
    url, detail = (image.get("url"), image.get("detail")) if isinstance(image, dict) else (None, None)
    if not isinstance(url, str) or not _is_image(url):
        raise Problem(400, f"{where}: image_url.url must be an http(s) address or data:image/…;base64,…", where)
    if detail not in (None, "auto", "low", "high"):
        raise Problem(400, f"{where}: image_url.detail must be auto, low or high", where)
    return {"type": "image_url", "image_url": {"url": url} | ({"detail": detail} if detail else {})}


def _is_image(url: str) -> bool:
    if url[:5].lower() == "data:":
        return _DATA.fullmatch(url) is not None
    return len(url) <= LONGEST_URL and _ADDRESS.fullmatch(url) is not None


def _check_calls(told: list[Shaped]) -> None:
    """Each call of a tool is answered right after it, and nothing else is."""
    waiting: set[str] = set()
    for index, message in enumerate(told):
        where = f"messages.{index}"
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                words = f"{where}: a tool's message must answer one of the `tool_calls` right before it"
                raise Problem(400, words, f"{where}.tool_call_id")
            waiting.discard(message["tool_call_id"])
            continue
        _check_answered(waiting, where)
        calls = [call["id"] for call in message.get("tool_calls", ())]
        waiting = set(calls)
        if len(waiting) < len(calls):
            raise Problem(400, f"{where}.tool_calls: two calls have the same id", f"{where}.tool_calls")
    _check_answered(waiting, "messages")


def _check_answered(waiting: set[str], where: str) -> None:
    if waiting:
        raise Problem(400, f"{where}: these tool calls have no answer: {', '.join(sorted(waiting))}", where)
