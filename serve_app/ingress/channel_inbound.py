"""What a channel of webhooks posts: let in by its signature alone."""

import time

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from adapters.standard_webhooks import BadSignature, verify
from domain.acting import TENANT
from domain.channels import Channel, Inbound, Received
from domain.ids import is_id
from domain.limits import RateLimited, Use, channel_rule
from domain.permissions import permissions_of
from domain.tenant import Caller
from serve_app.ingress.answers import Answer
from serve_app.ingress.bodies import checked
from serve_app.ingress.context import visit_of
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import Problem
from serve_app.ingress.limiting import BYTES_A_TOKEN
from serve_app.ingress.outward_bodies import InboundAnswer, InboundBody
from serve_app.ingress.parts import outward_of, parts_of

router = APIRouter(prefix="/api/v1/channels/{channel_id}", tags=["channels"])
LONGEST = 256 * 1024  # bytes of a body
PER_MINUTE = 1200  # requests of a channel
NOBODY = b"-" * 32  # a secret of no channel: what names none takes as long to refuse


@router.post(
    "/inbound", response_model=None, responses={200: {"model": InboundAnswer}}, openapi_extra=takes(InboundBody)
)
async def take_inbound(request: Request, channel_id: str) -> Response:
    """A message, a receipt, or that somebody writes, signed by the channel's secret (Standard Webhooks, at most five
    minutes ago). The same `id` again changes nothing: on any answer but 2xx and 4xx, send it again."""
    visit, unsigned = visit_of(request.scope), outward_of(request).unsigned
    named = channel_id if is_id(channel_id, "chn") else None
    await unsigned.check(visit.network, named)
    try:
        raw = await _body(request)
        channel = await _signed_by(request, named, raw)
    except (Problem, ClientDisconnect):  # also of what was not signed to its end
        await unsigned.failed(visit.network, named)
        raise
    visit.tenant, visit.caller = channel.tenant, channel.id
    TENANT.set(channel.tenant)
    body = checked(InboundBody, raw, strict=True)
    await _limit(request, channel, body, len(raw))
    received = await outward_of(request).receiving.receive(channel, _inbound(body))
    visit.conversation, visit.turn = received.conversation, received.turn
    _keep_limits(request, received)
    return Answer(
        {
            "object": "channel.received",
            "duplicate": received.duplicate,
            "conversation_id": received.conversation,
            "turn_id": received.turn,
            "message_id": received.message,
        }
    )


async def _body(request: Request) -> bytes:
    """Raises `Problem` 413, before anything is read where the head tells it."""
    told, parts, size = request.headers.get("content-length", ""), [], 0
    if told.isascii() and told.isdigit() and int(told) > LONGEST:
        raise _too_large()
    async for part in request.stream():
        size += len(part)
        if size > LONGEST:
            raise _too_large()
        parts.append(part)
    return b"".join(parts)


def _too_large() -> Problem:
    return Problem(413, f"the body is larger than {LONGEST} bytes")


async def _signed_by(request: Request, channel_id: str | None, raw: bytes) -> Channel:
    """The channel whose secret signed this. Raises `Problem` 401, also where there is no such channel."""
    found = None if channel_id is None else await outward_of(request).bindings.found(channel_id)
    channel = found if found is not None and found.kind == "webhook" else None
    headers = {name.lower(): value for name, value in request.headers.items()}
    try:
        verify((NOBODY,) if channel is None else channel.secrets, headers, raw, time.time())
    except BadSignature as error:
        raise Problem(401, f"not signed by this channel: {error}", code="invalid_signature") from None
    if channel is None:
        raise Problem(401, "not signed by this channel", code="invalid_signature")
    return channel


async def _limit(request: Request, channel: Channel, body: InboundBody, size: int) -> None:
    """Raises `RateLimited`."""
    caller = Caller(channel.tenant, channel.id, "service", permissions_of("service"))
    use: Use = "turn" if body.type == "message" else "request"
    visit = visit_of(request.scope)
    try:
        entry = await parts_of(request).limiter.enter(
            caller, use, max(1, size // BYTES_A_TOKEN), [channel_rule(channel.tenant, channel.id, PER_MINUTE)]
        )
    except RateLimited as refusal:
        refusal.headers = {}
        raise
    visit.entry = entry


def _keep_limits(request: Request, received: Received) -> None:
    """What a message took is given back when its turn has ended."""
    entry = visit_of(request.scope).entry
    if entry is not None and received.turn is not None and not received.duplicate:
        entry.begins(received.turn)


def _inbound(body: InboundBody) -> Inbound:
    return Inbound(
        body.id,
        body.type,
        body.thread,
        body.user,
        body.text or "",
        body.typing,
        body.message,
        body.status,
        body.metadata,
    )
