"""Channels: set up, changed, removed, and how they are."""

import secrets

from fastapi import APIRouter, Request
from starlette.responses import Response

from domain.channels import Channel, ChannelState
from domain.deliveries import DeliveryStatus
from domain.ids import new_id
from domain.subscribers import ChannelEntry
from serve_app.ingress.answers import Answer, page_answer
from serve_app.ingress.auth import ManagesChannels
from serve_app.ingress.bodies import body_hash, checked, idempotency_key
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import Problem
from serve_app.ingress.outward_bodies import (
    ChannelCreate,
    ChannelList,
    ChannelPatch,
    ChannelStatus,
    ChannelWithSecret,
    DeletedSubscriber,
    DeliveryList,
    check_content,
    settings_of,
    shown,
)
from serve_app.ingress.params import NewestFirst, known
from serve_app.ingress.parts import outward_of
from serve_app.ingress.sending import REPLAYED
from serve_app.ingress.sessions import NO_STORE
from storage.subscribers import New

router = APIRouter(prefix="/api/v1/channels", tags=["channels"])


@router.post(
    "",
    status_code=201,
    response_model=None,
    responses={201: {"model": ChannelWithSecret}},
    openapi_extra=takes(ChannelCreate, creates=True),
)
async def create_channel(request: Request, who: ManagesChannels) -> Response:
    """Set a channel up. This answer alone shows its secret, by which both sides sign."""
    outward = outward_of(request)
    body, key = checked(ChannelCreate, await request.body(), strict=True), idempotency_key(request)
    check_content(who)
    settings = settings_of(body.kind, body.settings, outward.allowed)
    values = {"kind": body.kind, "name": body.name, "settings": settings}
    new = New(new_id("chn"), values, key=key, body_hash=body_hash("channels", body))
    made, secret, replayed = await outward.channels.create(who, new)
    return Answer({**shown(made), "secret": secret}, 201, {**NO_STORE, **(REPLAYED if replayed else {})})


@router.get("", response_model=None, responses={200: {"model": ChannelList}})
async def list_channels(request: Request, who: ManagesChannels, page: NewestFirst) -> Response:
    """The tenant's channels, newest first."""
    if page.after is not None:
        known(page.after, "chn", "channel")
    return page_answer(await outward_of(request).channels.page(who.tenant, page), shown)


@router.get("/{channel_id}", response_model=None, responses={200: {"model": ChannelEntry}})
async def get_channel(request: Request, who: ManagesChannels, channel_id: str) -> Response:
    known(channel_id, "chn", "channel")
    return Answer(shown(await outward_of(request).channels.one(who.tenant, channel_id)))


@router.patch(
    "/{channel_id}", response_model=None, responses={200: {"model": ChannelEntry}}, openapi_extra=takes(ChannelPatch)
)
async def change_channel(request: Request, who: ManagesChannels, channel_id: str) -> Response:
    """Set the given fields. A disabled channel is sent nothing and taken nothing from; what waits is given up."""
    outward = outward_of(request)
    known(channel_id, "chn", "channel")
    body = checked(ChannelPatch, await request.body(), strict=True)
    given = body.model_dump(exclude_unset=True)
    if wrong := [name for name, value in given.items() if value is None]:
        raise Problem(422, f"{wrong[0]}: must not be null", wrong[0])
    found = await outward.channels.one(who.tenant, channel_id)
    values = {name: value for name, value in given.items() if name == "name"}
    if body.settings is not None:
        check_content(who)
        values["settings"] = settings_of(found.kind, found.settings | body.settings, outward.allowed)
    if values:
        found = await outward.channels.change(who, channel_id, values)
    if body.status is not None and body.status != found.status:
        move = outward.channels.enable if body.status == "active" else outward.channels.disable
        found = await move(who, channel_id)
    return Answer(shown(found))


@router.delete("/{channel_id}", response_model=None, responses={200: {"model": DeletedSubscriber}})
async def delete_channel(request: Request, who: ManagesChannels, channel_id: str) -> Response:
    """Remove a channel. Conversations stay."""
    known(channel_id, "chn", "channel")
    await outward_of(request).channels.delete(who, channel_id)
    return Answer({"id": channel_id, "object": "channel", "deleted": True})


@router.post("/{channel_id}/rotate-secret", response_model=None, responses={200: {"model": ChannelWithSecret}})
async def rotate_channel_secret(request: Request, who: ManagesChannels, channel_id: str) -> Response:
    """Sign with a new secret, which this answer alone shows; the old one counts, too, for 24 hours."""
    known(channel_id, "chn", "channel")
    found, secret, replayed = await outward_of(request).channels.rotate(
        who, channel_id, secrets.token_bytes(32), idempotency_key(request)
    )
    return Answer({**shown(found), "secret": secret}, 200, {**NO_STORE, **(REPLAYED if replayed else {})})


@router.get("/{channel_id}/status", response_model=None, responses={200: {"model": ChannelStatus}})
async def channel_status(request: Request, who: ManagesChannels, channel_id: str) -> Response:
    """How a channel is, and what waits for it."""
    outward = outward_of(request)
    known(channel_id, "chn", "channel")
    entry = await outward.channels.one(who.tenant, channel_id)
    port, state = outward.ports.get(entry.kind), ChannelState()
    if port is not None:
        state = await port.status(Channel(who.tenant, entry.id, entry.kind, entry.name, entry.settings))
    told = ChannelStatus(
        id=entry.id,
        status=entry.status,
        disabled_reason=entry.disabled_reason,
        connected=state.connected,
        connected_since=state.since,
        problem=state.problem,
        **await outward.channel_log.figures(who.tenant, channel_id),
    )
    return Answer(shown(told))


@router.post("/{channel_id}/reconnect", status_code=202, response_model=None, responses={202: {"model": ChannelEntry}})
async def reconnect_channel(request: Request, who: ManagesChannels, channel_id: str) -> Response:
    """Give up a channel's connection, where it keeps one, and take it up anew, soon."""
    outward = outward_of(request)
    known(channel_id, "chn", "channel")
    entry = await outward.channels.one(who.tenant, channel_id)
    port = outward.ports.get(entry.kind)
    if port is not None:
        await port.reconnect(Channel(who.tenant, entry.id, entry.kind, entry.name, entry.settings))
    return Answer(shown(entry), 202)


@router.get("/{channel_id}/deliveries", response_model=None, responses={200: {"model": DeliveryList}})
async def list_channel_deliveries(
    request: Request, who: ManagesChannels, channel_id: str, page: NewestFirst, status: DeliveryStatus | None = None
) -> Response:
    """What was sent to a channel, or waits to be, with receipts, newest first; kept for 30 days."""
    known(channel_id, "chn", "channel")
    if page.after is not None:
        known(page.after, "dlv", "delivery")
    return page_answer(await outward_of(request).channel_log.page(who.tenant, channel_id, page, status), shown)
