"""Search in messages, and what is like a message or a conversation."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AwareDatetime, BaseModel
from starlette.responses import Response

from domain.conversation import Conversation
from domain.errors import Unavailable
from domain.message import Message, Role
from domain.tenant import Caller
from serve_app.ingress.answer_models import ListOf
from serve_app.ingress.answers import Answer
from serve_app.ingress.auth import ReadsConversations
from serve_app.ingress.errors import Problem
from serve_app.ingress.owned import own_user
from serve_app.ingress.params import Limit, Written, key_of, known, text
from serve_app.ingress.parts import Parts, parts_of
from serve_app.ingress.shapes import conversation_json, message_json
from serve_app.memory import Memory, Scored
from storage.recall import Filters

router = APIRouter(prefix="/api/v1", tags=["memory"])

Degraded = Literal["vectors"]


class FoundMessage(BaseModel):
    message: Message
    score: float


class FoundMessages(ListOf):
    data: list[FoundMessage]


class SearchAnswer(FoundMessages):
    """`degraded`: what could not be searched at this moment, so that something may be missing."""

    degraded: list[Degraded]


class FoundConversation(BaseModel):
    conversation: Conversation
    score: float


class FoundConversations(ListOf):
    data: list[FoundConversation]


def filters(
    user_id: Annotated[str | None, Query(max_length=255, description="of the conversation")] = None,
    intent: Annotated[str | None, Query(max_length=255, description="what the message was taken to mean")] = None,
    role: Annotated[Role | None, Query()] = None,
    since: Annotated[
        AwareDatetime | None, Written, Query(description="created at this time or later (RFC 3339)")
    ] = None,
    until: Annotated[AwareDatetime | None, Written, Query(description="created before this time")] = None,
) -> Filters:
    since, until = _utc("since", since), _utc("until", until)
    if since is not None and until is not None and since >= until:
        raise Problem(422, "since: must lie before `until`", "since")
    return Filters(text("user_id", user_id), text("intent", intent), role, since, until)


def _utc(name: str, at: datetime | None) -> datetime | None:
    try:
        return at and at.astimezone(UTC)
    except OverflowError:
        raise Problem(422, f"{name}: no such time", name) from None


def of_caller(who: Caller, which: Filters) -> Filters:
    return replace(which, user=own_user(who, which.user))


Which = Annotated[Filters, Depends(filters)]


@router.get("/messages/search", response_model=None, responses={200: {"model": SearchAnswer}})
async def search_messages(
    request: Request,
    who: ReadsConversations,
    which: Which,
    q: Annotated[str, Query(min_length=1, max_length=1000, description="words, or what is meant")],
    limit: Limit = 20,
) -> Response:
    """The tenant's messages that hold the words of `q` or mean something like it, the best first.

    Both lists are merged by reciprocal rank. Words are joined by and; "a phrase", or, and -word are understood. 409
    `other_embedder` where the messages are indexed by another embedder than the one that runs.
    """
    if not (text("q", q) or "").strip():
        raise Problem(422, "q: must hold a word", "q")
    which = of_caller(who, which)
    answer = await _memory(parts_of(request)).search(who.tenant, q, limit, which)
    return Answer({**_messages(answer.found), "degraded": list(answer.degraded)})


@router.get("/messages/{message_id}/similar", response_model=None, responses={200: {"model": FoundMessages}})
async def similar_messages(
    request: Request, who: ReadsConversations, which: Which, message_id: str, limit: Limit = 20
) -> Response:
    """Messages that mean something like this one, the nearest first; `score` is the cosine of their vectors."""
    known(message_id, "msg", "message")
    found = await _memory(parts_of(request)).similar_messages(who.tenant, message_id, limit, of_caller(who, which))
    return Answer(_messages(found))


@router.get(
    "/conversations/{conversation_id}/similar", response_model=None, responses={200: {"model": FoundConversations}}
)
async def similar_conversations(
    request: Request,
    who: ReadsConversations,
    conversation_id: str,
    user_id: Annotated[str | None, Query(max_length=255)] = None,
    limit: Limit = 20,
) -> Response:
    """Conversations in which users said something like what was said in this one, the most alike first.

    `score`: the mean, over the last 16 messages of the user here, of the cosine with the best match there.
    """
    key = key_of(who, conversation_id)
    memory = _memory(parts_of(request))
    found = await memory.similar_conversations(
        key.tenant, key.conversation, limit, own_user(who, text("user_id", user_id))
    )
    return Answer(_list([{"conversation": conversation_json(each.one), "score": each.score} for each in found], found))


def _memory(parts: Parts) -> Memory:
    if parts.memory is None:
        raise Unavailable("messages are not indexed here")
    return parts.memory


def _messages(found: list[Scored[Message]]) -> dict[str, Any]:
    return _list([{"message": message_json(each.one), "score": each.score} for each in found], found)


def _list(data: list[dict[str, Any]], found: list[Any]) -> dict[str, Any]:
    return {
        "object": "list",
        "data": data,
        "first_id": found[0].one.id if found else None,
        "last_id": found[-1].one.id if found else None,
        "has_more": False,
    }
