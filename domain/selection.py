"""Which model answers a turn, and why."""

from dataclasses import dataclass, field
from typing import Any

from domain.errors import ModelNotFound
from domain.message import Intent
from domain.model import AUTO, SCRIPTED, Catalog, Route


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen route, the chain behind it for `auto`, and every candidate with its reason, for the trace."""

    route: Route
    reason: str
    fallback: tuple[Route, ...] = ()
    candidates: list[dict[str, Any]] = field(default_factory=list)


def select(catalog: Catalog, requested: str, intent: Intent | None = None) -> Selection:
    """Choose the model: a named one as named; `auto` the routing's default, else the first configured, else `scripted`.

    Raises `ModelNotFound` for an id that no provider allows.
    """
    if requested != AUTO:
        route = catalog.find(requested)
        if route is None:
            raise ModelNotFound(f"the model {requested!r} does not exist or is not allowed here")
        return Selection(route, "named by the caller", (), [_candidate(route.id, True, "named by the caller")])
    order = [catalog.routing.default] if catalog.routing.default != AUTO else _by_order(catalog)
    chain = list(dict.fromkeys(order[:1] + catalog.routing.fallback))
    routes = [route for route in map(catalog.find, chain) if route is not None]
    if not routes:
        raise ModelNotFound("no configured model can serve `auto`")
    first = routes[0]
    if first.provider.kind == SCRIPTED:
        reason = "no language model is configured"
    elif catalog.routing.default != AUTO:
        reason = "the routing's default"
    else:
        reason = "the first configured model"
    candidates = [_candidate(route.id, True, reason if i == 0 else f"fallback {i}") for i, route in enumerate(routes)]
    return Selection(first, reason, tuple(routes[1:]), candidates)


def _by_order(catalog: Catalog) -> list[str]:
    ids = catalog.ids()
    return [model for model in ids if model != SCRIPTED] or ids


def _candidate(model: str, allowed: bool, reason: str) -> dict[str, Any]:
    return {"model": model, "allowed": allowed, "reason": reason, "score": None, "estimated_cost_usd": None}
