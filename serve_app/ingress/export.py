"""A whole conversation as a file, written page by page."""

from collections.abc import AsyncIterator
from typing import Any, Literal

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from domain.conversation import Conversation
from domain.message import Message
from serve_app.ingress.auth import ReadsConversations
from serve_app.ingress.params import key_of
from serve_app.ingress.parts import parts_of
from serve_app.ingress.shapes import conversation_json, message_json, rfc3339

router = APIRouter(prefix="/api/v1/conversations", tags=["conversations"])
_Pages = AsyncIterator[list[Message]]
_TYPES = {
    "json": ("application/json", "json"),
    "jsonl": ("application/x-ndjson", "jsonl"),
    "markdown": ("text/markdown; charset=utf-8", "md"),
}


_DESCRIBED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The conversation, by `format`",
        "content": {
            "application/json": {"schema": {"type": "object", "required": ["object", "conversation", "messages"]}},
            "application/x-ndjson": {"schema": {"type": "string"}},
            "text/markdown": {"schema": {"type": "string"}},
        },
    }
}


@router.get("/{conversation_id}/export", response_model=None, responses=_DESCRIBED)
async def export_conversation(
    request: Request,
    who: ReadsConversations,
    conversation_id: str,
    format: Literal["json", "jsonl", "markdown"] = "json",
) -> Response:
    """All messages in order. `jsonl`: the conversation on the first line, then a message a line."""
    key = key_of(who, conversation_id)
    reader = parts_of(request).reader
    conversation = await reader.conversation(key.tenant, key.conversation)
    pages = reader.export(key.tenant, key.conversation)
    written = {"json": _json, "jsonl": _jsonl, "markdown": _markdown}[format](conversation, pages)
    media_type, ending = _TYPES[format]
    disposition = {"content-disposition": f'attachment; filename="{conversation_id}.{ending}"'}
    return StreamingResponse(written, media_type=media_type, headers=disposition)


async def _json(conversation: Conversation, pages: _Pages) -> AsyncIterator[bytes]:
    head: dict[str, Any] = {"object": "conversation.export", "conversation": conversation_json(conversation)}
    yield orjson.dumps(head)[:-1] + b',"messages":['
    comma = b""
    async for page in pages:
        yield comma + b",".join(orjson.dumps(message_json(message)) for message in page)
        comma = b","
    yield b"]}"


async def _jsonl(conversation: Conversation, pages: _Pages) -> AsyncIterator[bytes]:
    yield orjson.dumps(conversation_json(conversation)) + b"\n"
    async for page in pages:
        yield b"".join(orjson.dumps(message_json(message)) + b"\n" for message in page)


async def _markdown(conversation: Conversation, pages: _Pages) -> AsyncIterator[bytes]:
    title = " ".join((conversation.title or conversation.id).split())
    yield f"# {title}\n\n{rfc3339(conversation.created_at)} · {conversation.status}\n".encode()
    async for page in pages:
        yield "".join(map(_section, page)).encode()


def _section(message: Message) -> str:
    facts = [rfc3339(message.created_at)]
    facts += [message.model] if message.model else []
    facts += [message.status] if message.status != "completed" else []
    return f"\n## {message.role.capitalize()}\n\n*{' · '.join(facts)}*\n\n{message.content}\n"
