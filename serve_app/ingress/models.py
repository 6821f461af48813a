"""The models that may be named, with what is known of them, what was used of them, and what is preferred."""

from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from domain.errors import NotFound, Unavailable
from domain.model import Prices, Route
from domain.model_settings import ModelSettings
from serve_app.ingress.allowed import allowed_ids, allowed_route
from serve_app.ingress.answer_models import ModelCard, ModelList, ModelMetricsAnswer, ModelPreference
from serve_app.ingress.answers import Answer, list_json
from serve_app.ingress.auth import ManagesModels, ReadsModels
from serve_app.ingress.bodies import Native, checked
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import Problem, unknown_model
from serve_app.ingress.model_settings import Weight, registry_of
from serve_app.ingress.params import OldestFirst
from serve_app.ingress.parts import Parts, parts_of
from serve_app.ingress.periods import End, Moment, period
from serve_app.ingress.shapes import rfc3339

router = APIRouter(prefix="/api/v1/models", tags=["models"])


class Preference(Native):
    """How much `auto` prefers a model; null removes the preference, as does a body that is null."""

    weight: Weight | None


@router.get("", response_model=None, responses={200: {"model": ModelList}})
async def list_models(request: Request, who: ReadsModels, page: OldestFirst) -> Response:
    """The concrete models that the tenant may use, in the order of the catalog; patterns are not listed."""
    parts = parts_of(request)
    settings = await parts.models.settings(who.tenant)
    ids = await allowed_ids(parts, who)
    if page.descending:
        ids.reverse()
    if page.after is not None:
        if page.after not in ids:
            raise NotFound("there is no model with the id that `after` names")
        ids = ids[ids.index(page.after) + 1 :]
    routes = [route for route in map(parts.catalog.find, ids[: page.limit]) if route is not None]
    return Answer(list_json([_card(parts, route, settings) for route in routes], len(ids) > page.limit))


@router.get("/{model_id:path}/metrics", response_model=None, responses={200: {"model": ModelMetricsAnswer}})
async def get_model_metrics(
    request: Request, who: ReadsModels, model_id: str, since: Moment = None, until: End = None
) -> Response:
    """What the caller's tenant used of the model: turns, calls, tokens, cost, latencies, errors."""
    parts = parts_of(request)
    if "\0" in model_id:
        raise unknown_model(model_id)
    since, until = period(since, until)
    metrics = await parts.reader.model_metrics(who.tenant, model_id, since, until)
    if not metrics["turns"]["total"] and not metrics["calls"]["total"] and not metrics["calls"]["charged"]:
        await allowed_route(parts, who, model_id)  # a model that is gone keeps its history
    head = {"object": "model.metrics", "model": model_id, "from": rfc3339(since), "to": rfc3339(until)}
    return Answer(head | metrics)


@router.put(
    "/{model_id:path}/preferences",
    response_model=None,
    responses={200: {"model": ModelPreference}},
    openapi_extra=takes(Preference),
)
async def prefer_model(request: Request, who: ManagesModels, model_id: str) -> Response:
    """Make `auto` prefer (up to 1) or avoid (down to -1) a model for this tenant; null removes the preference."""
    parts, raw = parts_of(request), await request.body()
    weight = None if raw.strip() == b"null" else checked(Preference, raw, strict=True).weight
    registry = registry_of(parts)
    if weight is not None:
        await allowed_route(parts, who, model_id)

    def change(stored: ModelSettings) -> ModelSettings:
        preferences = {one: value for one, value in stored.preferences.items() if one != model_id}
        if weight is None and model_id not in stored.preferences and parts.catalog.find(model_id) is None:
            raise unknown_model(model_id)
        if weight is not None:
            preferences[model_id] = weight
        if len(preferences) > 200:
            raise Problem(422, "weight: at most 200 models may have a preference", "weight")
        return stored.model_copy(update={"preferences": preferences})

    await registry.store.change_settings(who.tenant, change)
    with suppress(Unavailable):
        await registry.refresh()
    return Answer({"object": "model.preference", "model": model_id, "weight": weight})


@router.get("/{model_id:path}", response_model=None, responses={200: {"model": ModelCard}})
async def get_model(request: Request, who: ReadsModels, model_id: str) -> Response:
    """One model that the tenant may use, also one that a pattern allows."""
    parts = parts_of(request)
    route = await allowed_route(parts, who, model_id)
    if route is None:
        raise unknown_model(model_id)
    return Answer(_card(parts, route, await parts.models.settings(who.tenant)))


def _card(parts: Parts, route: Route, settings: ModelSettings) -> dict[str, Any]:
    """What a caller may know: never where the model is called, nor the name of its key."""
    model, now = route.model, model_prices(route)
    return {
        "id": route.id,
        "object": "model",
        "provider": route.provider.name,
        "kind": route.provider.kind,
        "api": model.api,
        "context_tokens": model.context_tokens,
        "max_output_tokens": model.max_output_tokens,
        **now,
        "prices": [_price_json(prices) for prices in sorted(model.prices, key=lambda one: one.since)],
        "capabilities": model.capabilities,
        "quality": model.quality,
        "defaults": model.defaults.model_dump(exclude_none=True),
        "preference": settings.preferences.get(route.id),
        "healthy": f"{route.provider.name}/{route.id}" not in parts.health.unhealthy(),
    }


def model_prices(route: Route) -> dict[str, Any]:
    """The prices that hold now, and since when, where that is known."""
    prices = route.model.priced()
    since = None if prices is None or prices.since.year == 1 else rfc3339(prices.since)
    return {
        "price_in": prices and prices.price_in,
        "price_out": prices and prices.price_out,
        "price_cached": prices and prices.price_cached,
        "prices_from": since,
    }


def _price_json(prices: Prices) -> dict[str, Any]:
    return {
        "from": rfc3339(prices.since),
        "price_in": prices.price_in,
        "price_out": prices.price_out,
        "price_cached": prices.price_cached,
    }
