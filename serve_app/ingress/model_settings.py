"""A tenant's rules for models: what it may use, what it prefers, how `auto` is served, what it may spend."""

from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from domain.errors import NotFound, Unavailable
from domain.model import AUTO, Catalog
from domain.model_settings import ModelSettings
from domain.tenant import Caller
from serve_app.catalog_watch import CatalogWatch
from serve_app.ingress.answer_models import ModelSettingsAnswer
from serve_app.ingress.answers import Answer
from serve_app.ingress.auth import ManagesSettings, ReadsModels
from serve_app.ingress.bodies import checked
from serve_app.ingress.documents import takes
from serve_app.ingress.errors import Problem
from serve_app.ingress.params import known
from serve_app.ingress.parts import Parts, parts_of

router = APIRouter(prefix="/api/v1/tenants", tags=["models"])
OPERATORS_OWN = ("weight", "budget")
Weight = Annotated[float, Field(ge=-1, le=1)]


class ModelSettingsPut(ModelSettings):
    """The rules that take the place of the present ones; the answer of `GET` may be sent back."""

    object: Literal["model_settings"] = "model_settings"
    tenant_id: str | None = None

    def rules(self) -> ModelSettings:
        fields = self.model_fields_set - {"object", "tenant_id"}
        return ModelSettings.model_validate({name: getattr(self, name) for name in fields})


def registry_of(parts: Parts) -> CatalogWatch:
    if parts.registry is None:
        raise Unavailable("models and settings cannot be changed here")
    return parts.registry


@router.get("/{tenant_id}/model-settings", response_model=None, responses={200: {"model": ModelSettingsAnswer}})
async def get_model_settings(request: Request, who: ReadsModels, tenant_id: str) -> Response:
    """The tenant's rules. The operator may read those of any tenant."""
    registry = registry_of(parts_of(request))
    tenant = await _tenant(registry, who, tenant_id)
    return Answer(_json(tenant, await registry.store.settings(tenant)))


@router.put(
    "/{tenant_id}/model-settings",
    response_model=None,
    responses={200: {"model": ModelSettingsAnswer}},
    openapi_extra=takes(ModelSettingsPut),
)
async def put_model_settings(request: Request, who: ManagesSettings, tenant_id: str) -> Response:
    """Replace the tenant's rules. `weight` and `budget` stay as they are unless the operator sets them."""
    parts = parts_of(request)
    registry = registry_of(parts)
    tenant = await _tenant(registry, who, tenant_id)
    body = checked(ModelSettingsPut, await request.body(), strict=True)
    if body.tenant_id not in (None, tenant):
        raise Problem(422, "tenant_id: is not the one of the path", "tenant_id")
    given = body.rules()
    check_settings(given, parts.catalog)
    operator = who.operator
    settings = await registry.store.change_settings(
        tenant, lambda stored: given if operator else _by_admin(given, stored)
    )
    with suppress(Unavailable):
        await registry.refresh()
    return Answer(_json(tenant, settings))


def check_settings(settings: ModelSettings, catalog: Catalog) -> None:
    """Raises `Problem` 422 for a model that does not exist, or that is named and not allowed."""
    for number, one in enumerate(settings.allowed or ()):
        pattern = any(mark in one for mark in "*?[")
        if len(one) > 256 or (not pattern and one != AUTO and catalog.find(one) is None):
            raise _unknown(f"allowed.{number}", one)
    used = [("default", settings.default)] if settings.default not in (None, AUTO) else []
    used += [(f"fallback.{number}", one) for number, one in enumerate(settings.fallback or ())]
    others: list[tuple[str, str | None]] = [(f"preferences.{one}", one) for one in settings.preferences]
    others += [("judge", settings.judge), ("shadow.model", settings.shadow.model if settings.shadow else None)]
    others += [("summary_model", settings.summary_model)]
    for param, model in [*used, *others]:
        if model is not None and catalog.find(model) is None:
            raise _unknown(param, model)
    for param, model in used:
        if model is not None and not settings.allows(model):
            raise Problem(422, f"{param}: the model {model!r} is not among `allowed`", param)


def _unknown(param: str, model: str) -> Problem:
    return Problem(422, f"{param}: the model {model[:256]!r} does not exist", param)


def _by_admin(given: ModelSettings, stored: ModelSettings) -> ModelSettings:
    """What a tenant's own administrator may set; raises `Problem` 403 where it would change what is the operator's."""
    for name in OPERATORS_OWN:
        if name in given.model_fields_set and getattr(given, name) != getattr(stored, name):
            raise Problem(403, f"{name}: only the operator may set it", name)
    kept = {name: getattr(stored, name) for name in OPERATORS_OWN if name in stored.model_fields_set}
    own = {name: getattr(given, name) for name in given.model_fields_set if name not in OPERATORS_OWN}
    return ModelSettings.model_validate(own | kept)


async def _tenant(registry: CatalogWatch, who: Caller, tenant_id: str) -> str:
    if tenant_id == who.tenant:
        return tenant_id
    if not who.operator or not await registry.store.has_tenant(known(tenant_id, "ten", "tenant")):
        raise NotFound("there is no such tenant")
    return tenant_id


def _json(tenant: str, settings: ModelSettings) -> dict[str, Any]:
    return {"object": "model_settings", "tenant_id": tenant, **settings.model_dump(mode="json")}
