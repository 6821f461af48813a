"""A visitor of a web widget comes, or comes back: a user without an address, who may do no more than talk."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from domain.channels import Channel
from domain.ids import new_id
from domain.permissions import Permission, permissions_of
from domain.tenant import Caller
from domain.widget import WidgetSettings
from serve_app.ingress.answers import Answer
from serve_app.ingress.bodies import Native, checked
from serve_app.ingress.context import visit_of
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import Problem
from serve_app.ingress.identity import Identity, identity_of
from serve_app.ingress.parts import Parts, parts_of
from serve_app.ingress.sessions import NO_STORE, granted, new_refresh, rotated
from serve_app.ingress.widget_page import channels_of, widget_of
from storage.attempts import Limit
from storage.clients import token_hash
from storage.creation import NewConversation
from storage.pages import PageQuery
from storage.sessions import Session
from storage.users import NewUser

router = APIRouter(prefix="/api/v1/widgets", tags=["web widget"])

ROLE = "member"
SCOPES = (Permission.CONVERSATIONS_READ.value, Permission.MESSAGES_SEND.value)  # no more than that of the role
WINDOW = 600.0  # seconds
BY_ADDRESS, BY_WIDGET = 30, 3_000  # new visitors, and conversations begun anew, in it
RETURNS = 600  # of visitors of one address in it


class Visit(Native):
    """`refresh_token`: of the visit before. `conversation_id`: the one to go on with; `anew`: begin another one."""

    refresh_token: str | None = Field(None, max_length=200)
    conversation_id: str | None = Field(None, max_length=64)
    anew: bool = False


@router.post("/{channel_id}/sessions", response_model=None, status_code=201, openapi_extra=takes(Visit))
async def open_session(request: Request, channel_id: str) -> Response:
    """Tokens for a visitor and a conversation: a new visitor's, or with a `refresh_token` those of before.

    Public, and throttled by address: the script on the shop's page has no secret.
    """
    parts, identity = parts_of(request), identity_of(request)
    body = checked(Visit, await request.body() or b"{}", strict=True)
    widget = await widget_of(request, channel_id)
    await _limit(request, identity, widget, new=body.refresh_token is None or body.anew)
    if body.refresh_token is None:
        session, refresh = await _came(identity, widget)
    else:
        session, refresh = await _came_back(parts, identity, widget, body.refresh_token)
    conversation = await _conversation(request, widget, session.user_id, body)
    settings = WidgetSettings.model_validate(widget.settings)
    content: dict[str, Any] = {
        "object": "widget_session",
        **granted(identity, widget.tenant, session.user_id, ROLE, session, refresh, widget.id),
        "user_id": session.user_id,
        "conversation_id": conversation,
        "widget": settings.model_dump(exclude={"origins"}),
    }
    return Answer(content, 201, headers=NO_STORE)


async def _limit(request: Request, identity: Identity, widget: Channel, new: bool) -> None:
    """Before a refresh token is exchanged: a refused visit can be tried again with it. Raises `TooManyAttempts`."""
    name, address = f"widget:{widget.tenant}:{widget.id}", visit_of(request.scope).network
    if new:
        limits = [Limit(f"{name}:{address}", BY_ADDRESS, WINDOW), Limit(name, BY_WIDGET, WINDOW)]
    else:
        limits = [Limit(f"{name}:back:{address}", RETURNS, WINDOW)]
    await identity.attempts.take(limits)


async def _came(identity: Identity, widget: Channel) -> tuple[Session, str]:
    user = new_id("usr")
    new = NewUser(user, f"visitor-{user.removeprefix('usr_')}@visitor.invalid", ROLE, "Visitor")  # RFC 2606, section 2
    await identity.users.create(_acting(widget, user), new, "widget.visit")
    session, refresh = Session(new_id("ses"), user, widget.id, SCOPES), new_refresh(widget.tenant)
    await identity.sessions.open(widget.tenant, session, token_hash(refresh))
    return session, refresh


async def _came_back(parts: Parts, identity: Identity, widget: Channel, refresh: str) -> tuple[Session, str]:
    found = await rotated(parts, identity, refresh, widget.id)
    if found is None or found[0] != widget.tenant:
        raise Problem(401, "this visit has ended: come anew", "refresh_token", "invalid_refresh_token")
    return found[1], found[2]


async def _conversation(request: Request, widget: Channel, user: str, body: Visit) -> str:
    """The visitor's conversation: the named one, else the latest, else a new one; an ended one is over."""
    parts, channels = parts_of(request), channels_of(request)
    if not body.anew:
        page = await parts.reader.conversations(
            widget.tenant, PageQuery(limit=20, descending=True), status="active", user_id=user
        )
        mine = [one.id for one in page.data]
        if mine:
            return body.conversation_id if body.conversation_id in mine else mine[0]
    settings = await parts.tenants.settings(widget.tenant)
    new = NewConversation(
        id=new_id("conv"),
        user_id=user,
        title=None,
        metadata={"channel": widget.id},
        system_prompt=None,
        most=settings.quotas.max_conversations,
    )
    made, _ = await parts.reader.create_conversation(_acting(widget, user), new)
    await channels.bind(_acting(widget, user), made.id, widget.id, made.id, user)
    return made.id


def _acting(widget: Channel, user: str) -> Caller:
    return Caller(widget.tenant, widget.id, ROLE, permissions_of(ROLE, scopes=SCOPES), user)
