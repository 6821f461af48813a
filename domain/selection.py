"""Which model answers a turn, and why.

`auto` takes the candidates that the tenant allows, that can do what is asked, that fit, are healthy and affordable,
drops those that cost more than another and are no better, and weighs what is left:

    worth = dial * complexity * quality - (1 - dial) * (1 - complexity) * cost + preference

with `quality` and `cost` between 0 (least) and 1 (most) among the candidates, `complexity` the message's rank among
reference prompts, and `dial` the tenant's `cost_quality`. Of two models the stronger answers where complexity is above
1 - dial, so a dial of 0.3 sends it about three in ten such messages. The price of a model that holds the
conversation's prefix in its cache counts that prefix as cached: leaving it must pay.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from domain.errors import BudgetExceeded, ModelNotFound
from domain.message import Intent, Usage
from domain.model import AUTO, SCRIPTED, Catalog, Route
from domain.model_settings import ModelSettings

KEEP = 0.05  # worth of staying with the conversation's model
UNKNOWN = 0.5  # complexity of a message that nobody scored
_CHAT = frozenset({"chat"})
_FAILING, _DEAR, _FORBIDDEN = "its provider is failing", "would exceed the budget", "not allowed for this tenant"


@dataclass(frozen=True, slots=True)
class Situation:
    """What a choice depends on beside the catalog. Tokens are estimates.

    `needs`: capabilities; `unhealthy`: models (`provider/model`) whose breaker is open; `current`: the model of the
    conversation's last reply, which has `shared_tokens` of the prompt cached; `budget_usd`: what is left to spend.
    """

    settings: ModelSettings = field(default_factory=ModelSettings)
    prompt_tokens: int = 0
    answer_tokens: int | None = None
    needs: frozenset[str] = _CHAT
    complexity: float | None = None
    unhealthy: frozenset[str] = frozenset()
    current: str | None = None
    shared_tokens: int = 0
    budget_usd: float | None = None
    now: datetime | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen route, the chain behind it for `auto`, and every candidate with its reason, for the trace."""

    route: Route
    reason: str
    fallback: tuple[Route, ...] = ()
    candidates: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class _Candidate:
    route: Route
    cost: float | None
    refusal: str | None = None
    score: float | None = None

    def told(self, reason: str) -> dict[str, Any]:
        return {
            "model": self.route.id,
            "allowed": self.refusal is None,
            "reason": self.refusal or reason,
            "score": None if self.score is None else round(self.score, 4),
            "estimated_cost_usd": None if self.cost is None else round(self.cost, 9),
        }


def select(
    catalog: Catalog, requested: str, intent: Intent | None = None, situation: Situation | None = None
) -> Selection:
    """Choose the model: a named one as named; for `auto` the default of the tenant or the routing, else by worth.

    Raises `ModelNotFound` for an id that no provider serves or the tenant may not use, or where no model can serve
    `auto`; `BudgetExceeded` where only the budget forbids it.
    """
    situation = situation or Situation()
    if requested != AUTO:
        route = catalog.find(requested)
        if route is None or not situation.settings.allows(requested):
            raise ModelNotFound(f"the model {requested!r} does not exist or is not allowed here")
        named = _Candidate(route, _cost(route, situation))
        return Selection(route, "named by the caller", (), [named.told("named by the caller")])
    candidates = [_examined(route, situation) for route in _routes(catalog, catalog.ids())]
    open_to = {one.route.id: one for one in candidates if one.refusal is None}
    chosen, reason = _default(catalog, situation, open_to) or _worthiest(candidates, situation)
    chain = _chain(catalog, situation, open_to, chosen)
    if chosen is None:
        failing = [one.route for one in candidates if one.refusal == _FAILING]
        if not chain and not failing:
            raise _nobody(candidates)
        reason = "no candidate is left: the first " + (
            "of the fallback chain" if chain else "whose provider is failing"
        )
        chosen, *chain = chain or failing[:1]
    told = [one.told(reason if one.route.id == chosen.id else _place(one.route, chain)) for one in candidates] or [
        _Candidate(chosen, None).told(reason)
    ]
    return Selection(chosen, reason, tuple(chain), told)


def _nobody(candidates: list[_Candidate]) -> ModelNotFound | BudgetExceeded:
    """Why no model serves `auto`."""
    refused = {one.route.id: one.refusal for one in candidates if one.refusal and _speaks(one)}
    if any(refusal == _DEAR for refusal in refused.values()):
        return BudgetExceeded("no model that can answer is within what is left of the budget")
    told = "; ".join(f"{model} {refusal}" for model, refusal in list(refused.items())[:5])
    return ModelNotFound("no configured model can serve `auto`" + (f": {told}" if told else ""))


def _speaks(one: _Candidate) -> bool:
    """Whether it is a language model that the tenant may use."""
    model = one.route.provider.kind != SCRIPTED and "chat" in one.route.model.capabilities
    return model and one.refusal != _FORBIDDEN


def _routes(catalog: Catalog, ids: list[str]) -> list[Route]:
    return [route for route in map(catalog.find, dict.fromkeys(ids)) if route is not None]


def _examined(route: Route, situation: Situation) -> _Candidate:
    """A candidate with what it would cost, and why it cannot answer, if it cannot."""
    model = route.model
    one = _Candidate(route, _cost(route, situation))
    missing = sorted(situation.needs - set(model.capabilities))
    if not situation.settings.allows(route.id):
        one.refusal = _FORBIDDEN
    elif missing:
        one.refusal = f"cannot do {', '.join(missing)}"
    elif situation.prompt_tokens + min(_answer(route, situation), model.context_tokens // 2) > model.context_tokens:
        one.refusal = f"the prompt of about {situation.prompt_tokens} tokens does not fit"
    elif situation.budget_usd is not None and one.cost is not None and one.cost > situation.budget_usd:
        one.refusal = _DEAR
    elif f"{route.provider.name}/{route.id}" in situation.unhealthy:
        one.refusal = _FAILING
    return one


def _default(catalog: Catalog, situation: Situation, open_to: dict[str, _Candidate]) -> tuple[Route | None, str] | None:
    default = situation.settings.default or catalog.routing.default
    if default == AUTO:
        return None
    if default in open_to:
        return open_to[default].route, "the tenant's default" if situation.settings.default else "the routing's default"
    route = catalog.find(default)  # a pattern's id is no candidate of its own
    if route is None or route.id in catalog.ids():
        return None
    examined = _examined(route, situation)
    return (route, "the default") if examined.refusal is None else None


def _worthiest(candidates: list[_Candidate], situation: Situation) -> tuple[Route | None, str]:
    able = [one for one in candidates if one.refusal is None]
    models = [one for one in able if one.route.provider.kind != SCRIPTED]
    if not models:
        if able and not any(map(_speaks, candidates)):
            return able[0].route, "no language model is configured"
        return None, ""
    rated = [one for one in models if one.cost is not None and one.route.model.quality is not None]
    if len(rated) < 2:
        return models[0].route, "the first configured model" if len(models) > 1 else "the only model that can answer"
    _drop_dominated(rated)
    rated = [one for one in rated if one.refusal is None]
    dial = situation.settings.cost_quality
    complexity = UNKNOWN if situation.complexity is None else situation.complexity
    for one in rated:
        one.score = _worth(one, rated, complexity, 0.5 if dial is None else dial, situation)
    best = max(rated, key=lambda one: (one.score or 0.0, -(one.cost or 0.0)))
    why = f"complexity {complexity:.2f}" if situation.complexity is not None else "complexity unknown"
    kept = ", kept in this conversation" if best.route.id == situation.current else ""
    return best.route, f"{why} at cost-quality {0.5 if dial is None else dial:g}{kept}"


def _drop_dominated(rated: list[_Candidate]) -> None:
    """Never pay more for less: who costs more than another and is no better is out."""
    for one in rated:
        for other in rated:
            worse = _quality(other) >= _quality(one) and (other.cost or 0) <= (one.cost or 0)
            better = _quality(other) > _quality(one) or (other.cost or 0) < (one.cost or 0)
            if other.refusal is None and worse and better:
                one.refusal = f"costs more than {other.route.id} and is no better"
                break


def _worth(one: _Candidate, rated: list[_Candidate], complexity: float, dial: float, situation: Situation) -> float:
    quality = _relative(_quality(one), [_quality(other) for other in rated])
    cost = _relative(one.cost or 0.0, [other.cost or 0.0 for other in rated])
    worth = dial * complexity * quality - (1 - dial) * (1 - complexity) * cost
    worth += situation.settings.preferences.get(one.route.id, 0.0)
    return worth + (KEEP if one.route.id == situation.current else 0.0)


def _relative(value: float, values: list[float]) -> float:
    least, most = min(values), max(values)
    return (value - least) / (most - least) if most > least else 0.0


def _quality(one: _Candidate) -> float:
    return one.route.model.quality or 0.0


def _answer(route: Route, situation: Situation) -> int:
    return route.model.answer_tokens(situation.answer_tokens)


def _cost(route: Route, situation: Situation) -> float | None:
    """USD of the prompt and a whole answer; the prefix that this model has cached counts as cached."""
    cached = min(situation.shared_tokens, situation.prompt_tokens) if route.id == situation.current else 0
    usage = Usage(
        prompt_tokens=situation.prompt_tokens, cached_tokens=cached, completion_tokens=_answer(route, situation)
    )
    cost = route.model.cost_usd(usage, situation.now)
    return None if cost is None else float(cost)


def _chain(catalog: Catalog, situation: Situation, open_to: dict[str, _Candidate], chosen: Route | None) -> list[Route]:
    fallback = situation.settings.fallback
    named = catalog.routing.fallback if fallback is None else fallback
    ids = [one for one in dict.fromkeys(named) if chosen is None or one != chosen.id]
    # A failing provider stays at its place in the chain: its breaker answers at once, or has closed by then.
    return [
        route
        for route in _routes(catalog, ids)
        if route.id in open_to or _examined(route, situation).refusal in (None, _FAILING)
    ]


def _place(route: Route, chain: list[Route]) -> str:
    ids = [one.id for one in chain]
    if route.id in ids:
        return f"fallback {ids.index(route.id) + 1}"
    return "answers where no language model is configured" if route.provider.kind == SCRIPTED else "not chosen"
