"""Feedback on answers: what a tenant's own choice of models is trained from."""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from domain.feedback import Feedback
from serve_app.ingress.answers import Answer
from serve_app.ingress.auth import ReadsConversations, WritesMessages
from serve_app.ingress.bodies import Native, checked
from serve_app.ingress.documents import takes
from serve_app.ingress.params import known
from serve_app.ingress.parts import parts_of
from serve_app.ingress.service_answers import FeedbackRemoved
from serve_app.ingress.shapes import rfc3339

router = APIRouter(prefix="/api/v1/messages", tags=["messages"])


class FeedbackPut(Native):
    score: Annotated[float, Field(ge=0, le=1, strict=False, description="1: the answer did; 0: it did not")]
    comment: Annotated[str, Field(max_length=4000)] | None = None


@router.put(
    "/{message_id}/feedback",
    response_model=None,
    responses={200: {"model": Feedback}},
    openapi_extra=takes(FeedbackPut),
)
async def put_feedback(request: Request, who: WritesMessages, message_id: str) -> Response:
    """Say how good an answer was; the last word counts."""
    known(message_id, "msg", "message")
    body = checked(FeedbackPut, await request.body(), strict=True)
    reader = parts_of(request).reader
    return Answer(_told(await reader.put_feedback(who.tenant, message_id, body.score, body.comment)))


@router.get("/{message_id}/feedback", response_model=None, responses={200: {"model": Feedback}})
async def get_feedback(request: Request, who: ReadsConversations, message_id: str) -> Response:
    known(message_id, "msg", "message")
    return Answer(_told(await parts_of(request).reader.feedback(who.tenant, message_id)))


@router.delete("/{message_id}/feedback", response_model=None, responses={200: {"model": FeedbackRemoved}})
async def delete_feedback(request: Request, who: WritesMessages, message_id: str) -> Response:
    known(message_id, "msg", "message")
    await parts_of(request).reader.remove_feedback(who.tenant, message_id)
    return Answer({"message_id": message_id, "object": "message.feedback", "deleted": True})


def _told(feedback: Feedback) -> dict[str, object]:
    return {
        "object": "message.feedback",
        "message_id": feedback.message_id,
        "score": feedback.score,
        "comment": feedback.comment,
        "created_at": rfc3339(feedback.created_at),
        "updated_at": rfc3339(feedback.updated_at),
    }
