"""The built-in model: prepared answers by intent, for a service that has no language model."""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator
from typing import Any

from deployments.providers import Piece
from deployments.providers.scripted_products import answer
from deployments.providers.scripted_templates import NO_MODEL, OTHER, TEMPLATES
from domain.clarifying import OPENING
from domain.context.fence import without_data
from domain.generation import GenerationRequest
from domain.model import Route

MAX_TOPIC = 120  # characters
_WORDS = re.compile(r"\s*\S+\s*")
_OPENING = re.compile(
    r"^(?:(?:hi|hello|hey|please|ok|okay)[\s,!.]+)*"
    r"(?:(?:i\s+am|i'm|we\s+are)\s+(?:looking|searching)\s+for\s+|(?:can|could|would)\s+you\s+(?:please\s+)?(?:show|find|tell)"
    r"\s+me\s+(?:about\s+)?|(?:show|find|get|give)\s+me\s+|do\s+you\s+(?:have|sell)\s+|i\s+(?:want|need|would\s+like)\s+)?",
    re.IGNORECASE,
)


class ScriptedWire:
    """Answers at once, the same to the same messages, word by word."""

    async def stream(self, route: Route, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        products = None if request.products is None else answer(request.products)
        text, finish = reply(request.messages, request.intent, request.clarification, products), "stop"
        stop = request.parameters.get("stop") or []
        for mark in [stop] if isinstance(stop, str) else stop:
            text = text.partition(mark)[0] if mark else text
        words = _WORDS.findall(text)
        limit = request.parameters.get("max_tokens")
        if limit is not None and len(words) > limit:
            words, finish = words[:limit], "length"
        for word in words:
            yield Piece(word)
            await asyncio.sleep(0)  # so that each word is told, and a cancel is heard
        yield Piece("", finish)

    async def close(self) -> None:
        pass


def reply(
    messages: list[dict[str, Any]], intent: str | None, clarification: str | None = None, products: str | None = None
) -> str:
    """The answer to the last user message; in the first reply of a conversation it says that no model is configured.

    Where the message may mean several things it is `clarification`, but not twice in a row. What the catalogue says
    (`products`) comes before either.
    """
    first = not any(m.get("role") == "assistant" for m in messages)
    if products is not None:
        return (NO_MODEL if first else "") + products
    if clarification and _asked_before(messages):
        clarification, intent = None, OTHER
    asked = without_data(next((text_of(m) for m in reversed(messages) if m.get("role") == "user"), ""))
    templates = TEMPLATES.get(intent or OTHER, TEMPLATES[OTHER])
    choice = int.from_bytes(hashlib.sha256(f"{len(messages)}\0{asked}".encode(errors="replace")).digest()[:4])
    said = clarification or templates[choice % len(templates)].replace("{topic}", topic_of(asked))
    return (NO_MODEL if first else "") + said


def _asked_before(messages: list[dict[str, Any]]) -> bool:
    """Whether the last reply was a clarification: a second one would go in circles."""
    last = next((text_of(m) for m in reversed(messages) if m.get("role") == "assistant"), "")
    return last.removeprefix(NO_MODEL).startswith(OPENING)


def topic_of(asked: str) -> str:
    """The user's words without their opening, on one line, in quotation marks."""
    line = " ".join(asked.split())
    topic = (line[_OPENING.match(line).end() :] or line).rstrip(" ?!.")  # type: ignore[union-attr]  # matches anything
    if not topic:
        return "this"
    return f"“{topic[:MAX_TOPIC].rstrip()}…”" if len(topic) > MAX_TOPIC else f"“{topic}”"


def text_of(message: dict[str, Any]) -> str:
    """The text of a message whose content is a string or a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")
