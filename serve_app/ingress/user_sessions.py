"""What a user has open: sign-ins, also those through OAuth clients, which is what the user consented to."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from serve_app.ingress.answers import Answer, page_answer
from serve_app.ingress.auth import ManagesUser
from serve_app.ingress.identity import identity_of
from serve_app.ingress.params import NewestFirst, known
from serve_app.ingress.parts import parts_of
from serve_app.ingress.sessions import ended
from serve_app.ingress.shapes import rfc3339
from serve_app.ingress.user_bodies import EndedSessions, SessionList
from serve_app.ingress.users import user_of
from storage.sessions import OpenSession

router = APIRouter(prefix="/api/v1/users/{user_id}/sessions", tags=["users"])


@router.get("", response_model=None, responses={200: {"model": SessionList}})
async def list_sessions(request: Request, who: ManagesUser, user_id: str, page: NewestFirst) -> Response:
    """Sign-ins of the user that go on, the newest first."""
    user = await user_of(request, who, user_id)
    if page.after is not None:
        known(page.after, "ses", "session")
    return page_answer(await identity_of(request).sessions.page(who.tenant, user.id, page), _session_json)


@router.delete("", response_model=None, responses={200: {"model": EndedSessions}})
async def end_all_sessions(request: Request, who: ManagesUser, user_id: str) -> Response:
    """Sign the user out everywhere: no access token that was made before counts any more."""
    identity = identity_of(request)
    gone = await identity.users.sign_out(who, known(user_id, "usr", "user"))
    await ended(parts_of(request), identity, who.tenant, gone)
    return Answer({"object": "sessions", "user_id": user_id, "ended": len(gone)})


@router.delete("/{session_id}", response_model=None, responses={200: {"model": EndedSessions}})
async def end_one_session(request: Request, who: ManagesUser, user_id: str, session_id: str) -> Response:
    """End one sign-in, and with it what a client was allowed."""
    identity = identity_of(request)
    known(user_id, "usr", "user")
    gone = await identity.users.sign_out(who, user_id, known(session_id, "ses", "session"))
    await ended(parts_of(request), identity, who.tenant, gone)
    return Answer({"object": "sessions", "user_id": user_id, "ended": len(gone)})


def _session_json(session: OpenSession) -> dict[str, Any]:
    times = {name: rfc3339(getattr(session, name)) for name in ("created_at", "last_used_at", "expires_at")}
    return {**session.model_dump(), **times}
