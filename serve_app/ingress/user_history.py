"""A user's conversations, activity and spending, and what an agent says to them."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from domain.commands import Append
from domain.conversation import ConversationStatus
from domain.errors import NotFound
from domain.ids import is_id, new_id
from domain.message import Message
from serve_app.ingress.answer_models import ConversationList
from serve_app.ingress.answers import Answer, page_answer
from serve_app.ingress.auth import ReadsUser, SpeaksAsSystem
from serve_app.ingress.bodies import body_hash, checked, idempotency_key
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import Problem
from serve_app.ingress.identity import identity_of
from serve_app.ingress.params import NewestFirst, key_of, known
from serve_app.ingress.parts import parts_of
from serve_app.ingress.sending import REPLAYED
from serve_app.ingress.shapes import conversation_json, message_json, rfc3339
from serve_app.ingress.usage import span, sums
from serve_app.ingress.user_bodies import ActivityList, SystemMessage, UserUsage
from serve_app.ingress.users import user_of

router = APIRouter(prefix="/api/v1/users", tags=["users"])
From = Annotated[str | None, Query(alias="from", description="a day, or a time with its offset")]
To = Annotated[str | None, Query(alias="to", description="the last day, or the time before which it ends")]


@router.get("/{user_id}/conversations", response_model=None, responses={200: {"model": ConversationList}})
async def conversations_of_user(
    request: Request, who: ReadsUser, user_id: str, page: NewestFirst, status: ConversationStatus | None = None
) -> Response:
    """The user's conversations, newest first."""
    user = await user_of(request, who, user_id)
    if page.after is not None:
        known(page.after, "conv", "conversation")
    return page_answer(
        await parts_of(request).reader.conversations(who.tenant, page, status, user.id), conversation_json
    )


@router.get("/{user_id}/activity", response_model=None, responses={200: {"model": ActivityList}})
async def activity_of_user(request: Request, who: ReadsUser, user_id: str, page: NewestFirst) -> Response:
    """Recent messages and turns of the user's conversations, the newest first."""
    user = await user_of(request, who, user_id)
    if not page.descending:
        raise Problem(422, "order: activity is told from the newest on", "order")
    if page.after is not None and not (is_id(page.after, "msg") or is_id(page.after, "turn")):
        raise NotFound("there is no such message or turn")
    return page_answer(await identity_of(request).activity.activity(who.tenant, user.id, page), _activity_json)


@router.get("/{user_id}/usage", response_model=None, responses={200: {"model": UserUsage}})
async def usage_of_user(request: Request, who: ReadsUser, user_id: str, start: From = None, end: To = None) -> Response:
    """Calls, tokens and cost by model: of this month, unless `from` and `to` say otherwise."""
    user = await user_of(request, who, user_id)
    since, until = span(start, end, datetime.now(UTC))
    spent = await identity_of(request).activity.spent(who.tenant, user.id, since, until)
    return Answer(
        {
            "object": "user.usage",
            "user_id": user.id,
            "start": rfc3339(since),
            "end": rfc3339(until),
            "totals": {"model": "*", **sums(spent.totals)},
            "by_model": [{"model": row["model"], **sums(row)} for row in spent.by_model],
        }
    )


@router.post(
    "/{user_id}/messages",
    status_code=201,
    response_model=None,
    responses={201: {"model": Message}},
    openapi_extra=takes(SystemMessage, creates=True),
)
async def tell_user(request: Request, who: SpeaksAsSystem, user_id: str) -> Response:
    """Put a system message into a conversation of the user. Later prompts tell it at its place; it asks for no reply,
    and `turn_id` is empty."""
    user = await user_of(request, who, user_id)
    parts, body = parts_of(request), checked(SystemMessage, await request.body(), strict=True)
    key = key_of(who, body.conversation_id)
    if await parts.reader.user_of(who.tenant, "conversation", key.conversation) != user.id:
        raise NotFound("this user has no such conversation")
    appended = await parts.hosts.append(
        Append(
            key,
            who.key_id,
            idempotency_key(request) or new_id("req"),
            body_hash(f"users/{user.id}/messages", body),
            new_id("msg"),
            body.content,
            body.metadata,
        )
    )
    return Answer(message_json(appended.message), 201, REPLAYED if appended.replayed else None)


def _activity_json(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "created_at": rfc3339(row["created_at"])}
