"""`GET /v1/models`, in OpenAI's shape."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from domain.model import AUTO
from serve_app.ingress.allowed import allowed_ids, allowed_route
from serve_app.ingress.answers import Answer
from serve_app.ingress.auth import ReadsModels
from serve_app.ingress.errors import unknown_model
from serve_app.ingress.parts import Parts, parts_of
from serve_app.ingress.service_answers import OpenAIModel, OpenAIModelList

router = APIRouter(prefix="/v1/models", tags=["OpenAI-compatible"])


@router.get("", response_model=None, responses={200: {"model": OpenAIModelList}})
async def list_openai_models(request: Request, who: ReadsModels) -> Response:
    """`auto` and every concrete model that the tenant may use."""
    parts = parts_of(request)
    return Answer({"object": "list", "data": [_card(parts, one) for one in (AUTO, *await allowed_ids(parts, who))]})


@router.get("/{model_id:path}", response_model=None, responses={200: {"model": OpenAIModel}})
async def get_openai_model(request: Request, who: ReadsModels, model_id: str) -> Response:
    parts = parts_of(request)
    await allowed_route(parts, who, model_id)
    return Answer(_card(parts, model_id))


def _card(parts: Parts, model: str) -> dict[str, object]:
    owner = "brain"
    if model != AUTO:
        route = parts.catalog.find(model)
        if route is None:
            raise unknown_model(model)
        owner = route.provider.name
    return {"id": model, "object": "model", "created": parts.settings.started_at, "owned_by": owner}
