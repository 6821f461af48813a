"""Messages: reading, metadata, deletion."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from domain.message import Message
from serve_app.ingress.answer_models import Deleted, MessageInContext, MessageList, VersionList
from serve_app.ingress.answers import Answer, page_answer
from serve_app.ingress.auth import ReadsConversations, WritesMessages
from serve_app.ingress.bodies import MessagePatch, checked
from serve_app.ingress.documents import takes
from serve_app.ingress.params import OldestFirst, key_of, known
from serve_app.ingress.parts import parts_of
from serve_app.ingress.shapes import Json, message_json
from storage.versions import KeptVersion

router = APIRouter(prefix="/api/v1", tags=["messages"])


@router.get("/conversations/{conversation_id}/messages", response_model=None, responses={200: {"model": MessageList}})
async def list_messages(request: Request, who: ReadsConversations, conversation_id: str, page: OldestFirst) -> Response:
    """The conversation's messages in the order of `seq`."""
    key = key_of(who, conversation_id)
    if page.after is not None:
        known(page.after, "msg", "message")
    return page_answer(await parts_of(request).reader.messages(key.tenant, key.conversation, page), message_json)


@router.get("/messages/{message_id}", response_model=None, responses={200: {"model": MessageInContext}})
async def get_message(
    request: Request,
    who: ReadsConversations,
    message_id: str,
    context: Annotated[int | None, Query(ge=0, le=50)] = None,
) -> Response:
    """A message; `context` adds that many messages before and after it."""
    known(message_id, "msg", "message")
    before, message, after = await parts_of(request).reader.message(who.tenant, message_id, context or 0)
    content = message_json(message)
    if context is not None:
        content["context"] = {
            "before": [message_json(one) for one in before],
            "after": [message_json(one) for one in after],
        }
    return Answer(content)


@router.get("/messages/{message_id}/versions", response_model=None, responses={200: {"model": VersionList}})
async def list_versions(request: Request, who: ReadsConversations, message_id: str, page: OldestFirst) -> Response:
    """All replies to a message (the id of which, or of any of them, is given), the oldest first. The one that later
    prompts tell has `superseded_by` null."""
    known(message_id, "msg", "message")
    if page.after is not None:
        known(page.after, "msg", "message")
    return page_answer(await parts_of(request).reader.versions(who.tenant, message_id, page), _version_json)


@router.patch(
    "/messages/{message_id}",
    response_model=None,
    responses={200: {"model": Message}},
    openapi_extra=takes(MessagePatch),
)
async def change_message(request: Request, who: WritesMessages, message_id: str) -> Response:
    """Replace the message's metadata."""
    known(message_id, "msg", "message")
    body = checked(MessagePatch, await request.body(), strict=True)
    return Answer(message_json(await parts_of(request).reader.set_metadata(who.tenant, message_id, body.metadata)))


@router.delete("/messages/{message_id}", response_model=None, responses={200: {"model": Deleted}})
async def delete_message(request: Request, who: WritesMessages, message_id: str) -> Response:
    """Delete a message; its `seq` stays unused. Refused (409 `conversation_busy`) while the conversation has an
    unfinished turn."""
    known(message_id, "msg", "message")
    await parts_of(request).reader.delete_message(who.tenant, message_id)
    return Answer({"id": message_id, "object": "message", "deleted": True})


def _version_json(version: KeptVersion) -> Json:
    return {**message_json(version.message), "superseded_by": version.superseded_by}
