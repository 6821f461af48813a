"""Which channels a conversation is shown on."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from serve_app.ingress.answers import Answer, list_json
from serve_app.ingress.auth import ManagesChannels, ReadsConversations
from serve_app.ingress.bodies import checked
from serve_app.ingress.documents import takes
from serve_app.ingress.outward_bodies import (
    Bind,
    BindingEntry,
    BindingList,
    DeletedSubscriber,
    binding_json,
    check_content,
)
from serve_app.ingress.params import key_of, known
from serve_app.ingress.parts import outward_of

router = APIRouter(prefix="/api/v1/conversations/{conversation_id}/channels", tags=["channels"])


@router.get("", response_model=None, responses={200: {"model": BindingList}})
async def list_bindings(request: Request, who: ReadsConversations, conversation_id: str) -> Response:
    """The channels that show a conversation, each with its thread."""
    key = key_of(who, conversation_id)
    found = await outward_of(request).bindings.bindings(key.tenant, key.conversation)
    return Answer(list_json([binding_json(one) for one in found], False))


@router.post(
    "",
    status_code=201,
    response_model=None,
    responses={200: {"model": BindingEntry}, 201: {"model": BindingEntry}},
    openapi_extra=takes(Bind),
)
async def bind(request: Request, who: ManagesChannels, conversation_id: str) -> Response:
    """Show a conversation on a channel from now on, and take what is written in the thread there as part of it. Doing
    it again changes nothing, and answers 200."""
    key = key_of(who, conversation_id)
    body = checked(Bind, await request.body(), strict=True)
    known(body.channel_id, "chn", "channel")
    check_content(who)
    made, fresh = await outward_of(request).bindings.bind(
        who, key.conversation, body.channel_id, body.thread, body.user
    )
    return Answer(binding_json(made), 201 if fresh else 200)


@router.delete("/{channel_id}", response_model=None, responses={200: {"model": DeletedSubscriber}})
async def unbind(request: Request, who: ManagesChannels, conversation_id: str, channel_id: str) -> Response:
    """Show a conversation there no more. What its thread writes then begins another one."""
    key = key_of(who, conversation_id)
    known(channel_id, "chn", "channel")
    await outward_of(request).bindings.unbind(who, key.conversation, channel_id)
    return Answer({"id": channel_id, "object": "channel_binding", "deleted": True})
