"""Which models a caller may use."""

from domain.model import AUTO, Route
from domain.permissions import Permission
from domain.tenant import Caller
from serve_app.ingress.errors import Problem, unknown_model
from serve_app.ingress.parts import Parts


async def allowed_route(parts: Parts, caller: Caller, model: str) -> Route | None:
    """What serves the model that a caller names; None for `auto`, which is chosen later.

    Raises `Problem` 404 for one that no provider serves or the tenant may not use, and `Unavailable` where the tenant's
    rules were never read and cannot be now.
    """
    return await route_of(parts, caller.tenant, model)


async def route_of(parts: Parts, tenant: str, model: str) -> Route | None:
    """`allowed_route`, by the tenant."""
    if model == AUTO:
        return None
    if "\0" in model:  # no database can hold it
        raise unknown_model(model)
    route = parts.catalog.find(model)
    if route is None and parts.registry is not None and await parts.registry.knows(model):
        route = parts.catalog.find(model)
    if route is None or not (await parts.models.settings(tenant)).allows(model):
        raise unknown_model(model)
    return route


async def allowed_ids(parts: Parts, caller: Caller) -> list[str]:
    """The concrete models that the caller's tenant may use, in the catalog's order."""
    settings = await parts.models.settings(caller.tenant)
    return [one for one in dict.fromkeys(parts.catalog.ids()) if settings.allows(one)]


def may_name(caller: Caller, *models: str) -> None:
    """Raises `Problem` 403 where a caller names a model that may only take the one that is chosen for it."""
    if any(model != AUTO for model in models) and not caller.may(Permission.MODELS_READ):
        raise Problem(403, "naming a model needs the permission models:read: leave it at auto", "model")
