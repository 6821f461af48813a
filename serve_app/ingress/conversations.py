"""Conversations: creation, reading, changes, end, deletion, figures."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from domain.commands import Change
from domain.conversation import Conversation, ConversationStatus
from domain.ids import new_id
from serve_app.ingress.answer_models import ConversationList, ConversationSummary, Deleted
from serve_app.ingress.answers import Answer, page_answer
from serve_app.ingress.auth import DeletesConversations, ReadsConversations, WritesConversations
from serve_app.ingress.bodies import ConversationCreate, ConversationPatch, body_hash, checked, idempotency_key
from serve_app.ingress.context import visit_of
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import Problem
from serve_app.ingress.owned import own_user
from serve_app.ingress.params import NewestFirst, key_of, known, text
from serve_app.ingress.parts import parts_of
from serve_app.ingress.sending import REPLAYED
from serve_app.ingress.shapes import conversation_json, summary_json
from storage.creation import NewConversation
from storage.summaries import on_demand

router = APIRouter(prefix="/api/v1/conversations", tags=["conversations"])


@router.post(
    "",
    status_code=201,
    response_model=None,
    responses={201: {"model": Conversation}},
    openapi_extra=takes(ConversationCreate, required=False, creates=True),
)
async def create_conversation(request: Request, who: WritesConversations) -> Response:
    """Start a conversation."""
    body = checked(ConversationCreate, await request.body() or b"{}", strict=True)
    key = idempotency_key(request)
    parts = parts_of(request)
    settings = await parts.tenants.settings(who.tenant)
    made, replayed = await parts.reader.create_conversation(
        who,
        NewConversation(
            id=new_id("conv"),
            user_id=own_user(who, body.user_id),
            title=body.title,
            metadata=body.metadata,
            system_prompt=body.system_prompt,
            key=key,
            body_hash=body_hash("conversations", body),
            most=settings.quotas.max_conversations,
        ),
    )
    visit_of(request.scope).conversation = made.id
    return Answer(conversation_json(made), 201, REPLAYED if replayed else None)


@router.get("", response_model=None, responses={200: {"model": ConversationList}})
async def list_conversations(
    request: Request,
    who: ReadsConversations,
    page: NewestFirst,
    status: ConversationStatus | None = None,
    user_id: Annotated[str | None, Query()] = None,
) -> Response:
    """The tenant's conversations, newest first."""
    if page.after is not None:
        known(page.after, "conv", "conversation")
    found = await parts_of(request).reader.conversations(
        who.tenant, page, status, own_user(who, text("user_id", user_id))
    )
    return page_answer(found, conversation_json)


@router.get("/{conversation_id}", response_model=None, responses={200: {"model": Conversation}})
async def get_conversation(request: Request, who: ReadsConversations, conversation_id: str) -> Response:
    key = key_of(who, conversation_id)
    return Answer(conversation_json(await parts_of(request).reader.conversation(key.tenant, key.conversation)))


@router.patch(
    "/{conversation_id}",
    response_model=None,
    responses={200: {"model": Conversation}},
    openapi_extra=takes(ConversationPatch),
)
async def change_conversation(request: Request, who: WritesConversations, conversation_id: str) -> Response:
    """Set the given fields; `metadata` is replaced as a whole."""
    key = key_of(who, conversation_id)
    body = checked(ConversationPatch, await request.body(), strict=True)
    fields = body.model_dump(exclude_unset=True)
    if who.only_user is not None and fields.get("user_id", who.only_user) != who.only_user:
        raise Problem(403, "user_id: only an agent gives a conversation to another user", "user_id")
    if not fields:
        raise Problem(422, "name at least one field to change")
    return Answer(conversation_json(await parts_of(request).hosts.change(Change(key, fields))))


@router.post("/{conversation_id}/end", response_model=None, responses={200: {"model": Conversation}})
async def end_conversation(request: Request, who: WritesConversations, conversation_id: str) -> Response:
    """End the conversation: what was accepted before is answered, further messages are refused."""
    key = key_of(who, conversation_id)
    return Answer(conversation_json(await parts_of(request).hosts.change(Change(key, end=True))))


@router.delete("/{conversation_id}", response_model=None, responses={200: {"model": Deleted}})
async def delete_conversation(request: Request, who: DeletesConversations, conversation_id: str) -> Response:
    """Delete the conversation and all that belongs to it."""
    key = key_of(who, conversation_id)
    await parts_of(request).hosts.delete(key)
    return Answer({"id": conversation_id, "object": "conversation", "deleted": True})


@router.get("/{conversation_id}/summary", response_model=None, responses={200: {"model": ConversationSummary}})
async def conversation_summary(request: Request, who: ReadsConversations, conversation_id: str) -> Response:
    """What the conversation's prompts tell of its early turns; of a conversation that still fits, one made now."""
    key = key_of(who, conversation_id)
    reader = parts_of(request).reader
    stored, messages = await reader.summary(key.tenant, key.conversation)
    told = stored.summary if messages is None else await asyncio.to_thread(on_demand, messages)
    return Answer(summary_json(key.conversation, told, stored.updated_at))


@router.get("/{conversation_id}/metrics", response_model=None)
async def conversation_metrics(request: Request, who: ReadsConversations, conversation_id: str) -> Response:
    """Turns by status, messages by role, tokens, cost, and latencies in milliseconds."""
    key = key_of(who, conversation_id)
    return Answer(await parts_of(request).reader.conversation_metrics(key.tenant, key.conversation))
