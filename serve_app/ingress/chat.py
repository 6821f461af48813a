"""`POST /v1/chat/completions`: with a conversation named it is a turn of that; otherwise nothing is kept."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from serve_app.ingress.auth import Completes
from serve_app.ingress.bodies import checked
from serve_app.ingress.chat_kept import complete_in_conversation
from serve_app.ingress.chat_unkept import complete
from serve_app.ingress.documents import takes
from serve_app.ingress.openai_bodies import ChatCompletion
from serve_app.ingress.owned import check_conversation
from serve_app.ingress.parts import admit, check_feature

router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])


@router.post(
    "/chat/completions",
    response_model=None,
    responses={200: {"content": {"application/json": {}, "text/event-stream": {}}, "description": "A completion"}},
    openapi_extra=takes(ChatCompletion, creates=True),
)
async def chat_completions(request: Request, caller: Completes) -> Response:
    """Answer a list of messages; or, with `x-conversation-id`, the last of them as a turn of that conversation."""
    body = checked(ChatCompletion, await request.body(), status=400)
    conversation_id = request.headers.get("x-conversation-id") or (body.metadata or {}).get("conversation_id")
    await check_feature(request, caller.tenant, "completions")
    if conversation_id is None:
        admit(request, caller.tenant, body.model)
        return await complete(request, caller, body)
    await check_conversation(request, caller, str(conversation_id))
    return await complete_in_conversation(request, caller, body, str(conversation_id))
