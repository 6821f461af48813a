"""`POST /api/v1/ws/tickets`: for pages that cannot send a header with an upgrade, and should not show a token."""

from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from domain.errors import Unavailable
from serve_app.ingress.answers import Answer
from serve_app.ingress.auth import ReadsConversations
from serve_app.ingress.parts import parts_of
from serve_app.ingress.shapes import rfc3339
from storage.tickets import LASTS

router = APIRouter(prefix="/api/v1/ws", tags=["websocket"])


class TicketAnswer(BaseModel):
    object: str = "websocket.ticket"
    ticket: str
    expires_at: datetime


@router.post("/tickets", status_code=201, response_model=None, responses={201: {"model": TicketAnswer}})
async def give_ticket(request: Request, caller: ReadsConversations) -> Response:
    """A ticket for one WebSocket of this caller, within half a minute: `/api/v1/ws?ticket=…`."""
    sockets = parts_of(request).sockets
    if sockets is None:
        raise Unavailable("there are no WebSockets here")
    until = datetime.now(UTC) + timedelta(seconds=LASTS)
    credential = request.headers.get("authorization", "").partition(" ")[2].strip()
    ticket = await sockets.tickets.give(caller.tenant, credential)
    return Answer({"object": "websocket.ticket", "ticket": ticket, "expires_at": rfc3339(until)}, 201)
