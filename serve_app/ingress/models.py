"""The models that may be named, with what is known of them."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from domain.errors import NotFound
from domain.model import Route
from serve_app.ingress.answer_models import ModelCard, ModelList
from serve_app.ingress.answers import Answer, list_json
from serve_app.ingress.auth import Who
from serve_app.ingress.errors import unknown_model
from serve_app.ingress.params import OldestFirst
from serve_app.ingress.parts import parts_of

router = APIRouter(prefix="/api/v1/models", tags=["models"])


@router.get("", response_model=None, responses={200: {"model": ModelList}})
async def list_models(request: Request, who: Who, page: OldestFirst) -> Response:
    """The concrete models, in the order of the configuration; patterns are not listed."""
    catalog = parts_of(request).catalog
    ids = list(dict.fromkeys(catalog.ids()))
    if page.descending:
        ids.reverse()
    if page.after is not None:
        if page.after not in ids:
            raise NotFound("there is no model with the id that `after` names")
        ids = ids[ids.index(page.after) + 1 :]
    routes = [route for route in map(catalog.find, ids[: page.limit]) if route is not None]
    return Answer(list_json([_card(route) for route in routes], len(ids) > page.limit))


@router.get("/{model_id:path}", response_model=None, responses={200: {"model": ModelCard}})
async def get_model(request: Request, who: Who, model_id: str) -> Response:
    route = parts_of(request).catalog.find(model_id)
    if route is None:
        raise unknown_model(model_id)
    return Answer(_card(route))


def _card(route: Route) -> dict[str, object]:
    model = route.model
    return {
        "id": route.id,
        "object": "model",
        "provider": route.provider.name,
        "context_tokens": model.context_tokens,
        "price_in": model.price_in,
        "price_out": model.price_out,
        "capabilities": model.capabilities,
        "quality": model.quality,
        "defaults": model.defaults.model_dump(exclude_none=True),
    }
