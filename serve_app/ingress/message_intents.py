"""Messages by what they asked for, and what one message was taken to mean."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from domain.analysis import analysis_json
from serve_app.ingress.answer_models import MessageList
from serve_app.ingress.answers import Answer, page_answer
from serve_app.ingress.auth import ReadsAnyConversation, ReadsConversations
from serve_app.ingress.errors import Problem
from serve_app.ingress.intent_answers import MessageAnalysis
from serve_app.ingress.params import OldestFirst, known, text
from serve_app.ingress.parts import parts_of
from serve_app.ingress.shapes import as_stored, message_json
from storage.message_intents import IntentQuery

router = APIRouter(prefix="/api/v1/messages", tags=["messages"])
Share = Annotated[float | None, Query(ge=0, le=1)]


@router.get("", response_model=None, responses={200: {"model": MessageList}})
async def messages_by_intent(
    request: Request,
    who: ReadsAnyConversation,
    page: OldestFirst,
    intent: Annotated[str | None, Query(max_length=128)] = None,
    min_confidence: Share = None,
    max_confidence: Share = None,
) -> Response:
    """Users' messages that were taken for an intent, of all conversations, in the order in which they came; those with
    any intent where none is named."""
    if page.after is not None:
        known(page.after, "msg", "message")
    if min_confidence is not None and max_confidence is not None and min_confidence > max_confidence:
        raise Problem(422, "min_confidence: must not be above max_confidence", "min_confidence")
    query = IntentQuery(text("intent", intent), min_confidence, max_confidence)
    return page_answer(await parts_of(request).reader.messages_by_intent(who.tenant, query, page), message_json)


@router.get("/{message_id}/analysis", response_model=None, responses={200: {"model": MessageAnalysis}})
async def get_analysis(request: Request, who: ReadsConversations, message_id: str) -> Response:
    """What the message was taken to mean when it came; what it means now, where that was not kept."""
    known(message_id, "msg", "message")
    parts = parts_of(request)
    content, stored = await parts.reader.understanding(who.tenant, message_id)
    found = stored or as_stored(analysis_json(await parts.classifier.classify(content, who.tenant)))
    told = {name: found.get(name) for name in MessageAnalysis.model_fields if name in found}
    return Answer({"object": "message.analysis", "message_id": message_id, "stored": stored is not None, **told})
