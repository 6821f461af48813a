"""Chooses the model of a turn and builds its prompt; what the choice depended on is kept for the trace."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from actors.parts import Parts
from actors.window import Window
from domain.context import ESTIMATE, Material, Prompt, Remembered, TokenCounter, build_prompt
from domain.message import Intent
from domain.model import AUTO, SCRIPTED, Catalog, Model, Route
from domain.model_settings import ModelSettings
from domain.selection import Selection, Situation, select

_NEEDS = (("tools", "tools"), ("response_format", "json"))  # a parameter, and the capability that it asks for


@dataclass(frozen=True, slots=True)
class Question:
    """What a turn asks: a model or `auto`, its parameters, and what may be told: `history` from the order `start` on,
    up to the message at `order`, and `material` that was looked up for it. `held`: USD that are held for it, where
    there is a budget. `beside`: tokens that the prompt leaves for what is told beside it (tools)."""

    requested: str
    parameters: dict[str, Any]
    order: int
    start: int
    history: Sequence[Remembered]
    intent: Intent | None = None
    complexity: float | None = None
    held: Decimal | None = None
    material: Sequence[Material] = ()
    beside: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen model, the prompt made for it, and the situation in which it was chosen, as the trace holds it.

    `shared`: tokens at the prompt's beginning that the chosen model has read before.
    """

    selection: Selection
    prompt: Prompt
    shared: int = 0
    situation: dict[str, Any] = field(default_factory=dict)


def choose(parts: Parts, settings: ModelSettings, window: Window, question: Question) -> Choice:
    """Choose and build. Raises `ModelNotFound` for a model that is not there or not allowed, `BudgetExceeded`."""
    catalog, asked = parts.catalog, question.parameters.get("max_tokens")
    if settings.cost_quality is None:
        settings = settings.model_copy(update={"cost_quality": catalog.routing.cost_quality})
    candidates = _candidates(catalog, settings, question.requested)
    room = max((budget(one, asked, question.beside) for one in candidates), default=Model(id=AUTO).context_tokens)
    counter = parts.counters.counter(candidates[0]) if len(candidates) == 1 else ESTIMATE
    prompt = _prompt(parts, window, question, room, counter)
    situation = Situation(
        settings=settings,
        prompt_tokens=min(prompt.tokens, room),
        answer_tokens=asked,
        needs=frozenset({"chat", *(able for field, able in _NEEDS if question.parameters.get(field))}),
        complexity=question.complexity,
        unhealthy=parts.health.unhealthy(),
        current=window.model,
        shared_tokens=window.shared_tokens(prompt.window_from, question.order, prompt.told, prompt.counter),
        budget_usd=None if question.held is None else float(question.held),
    )
    selection = select(catalog, question.requested, question.intent, situation)
    own = budget(selection.route.model, asked, question.beside)
    counter = parts.counters.counter(selection.route.model)
    if prompt.tokens > own or counter.name != prompt.counter.name:
        prompt = _prompt(parts, window, question, own, counter)
    shared = 0
    if selection.route.id == window.model:
        shared = window.shared_tokens(prompt.window_from, question.order, prompt.told, prompt.counter)
    return Choice(selection, prompt, shared, _told(catalog, question, situation, selection))


def budget(model: Model, asked: int | None, beside: int = 0) -> int:
    """Tokens that a prompt may have beside an answer of `asked` tokens at the most, and `beside` tokens of tools, where
    the model can call any."""
    room = model.context_tokens - min(asked or model.max_output_tokens, model.context_tokens // 2)
    return max(room - beside, room // 4) if "tools" in model.capabilities else room


def _candidates(catalog: Catalog, settings: ModelSettings, requested: str) -> list[Model]:
    """The models in question: history that is longer than what the largest of them takes is cut."""
    ids = [requested] if requested != AUTO else [*catalog.ids(), settings.default or catalog.routing.default]
    routes = [route for one in ids if settings.allows(one) and (route := catalog.find(one)) is not None]
    return [route.model for route in routes if route.provider.kind != SCRIPTED] or [route.model for route in routes]


def _prompt(parts: Parts, window: Window, question: Question, budget: int, counter: TokenCounter) -> Prompt:
    return build_prompt(
        window.instructions,
        question.history,
        question.order,
        question.start,
        budget,
        parts.limits.context_messages,
        summary=window.summary,
        extend=not window.gap,
        material=question.material,
        counter=counter,
    )


def _told(catalog: Catalog, question: Question, situation: Situation, selection: Selection) -> dict[str, Any]:
    settings = situation.settings
    return {
        "requested": question.requested,
        "complexity": situation.complexity,
        "prompt_tokens": situation.prompt_tokens,
        "answer_tokens": situation.answer_tokens,
        "needs": sorted(situation.needs),
        "current": situation.current,
        "shared_tokens": situation.shared_tokens,
        "cost_quality": settings.cost_quality,
        "default": settings.default or catalog.routing.default,
        "fallback": [route.id for route in selection.fallback],
        "budget_usd": situation.budget_usd,
        "candidates": [_candidate(catalog.find(told["model"]), told, settings) for told in selection.candidates],
    }


def _candidate(route: Route | None, told: dict[str, Any], settings: ModelSettings) -> dict[str, Any]:
    """A candidate as it was at the time: the catalog may change, the trace stays."""
    if route is None:
        return told
    model, prices = route.model, route.model.priced()
    return {
        "model": route.id,
        "provider": route.provider.name,
        "scripted": route.provider.kind == SCRIPTED,
        "reason": told["reason"],
        "allowed": told["allowed"],
        "quality": model.quality,
        "price_in": prices and prices.price_in,
        "price_out": prices and prices.price_out,
        "price_cached": prices and prices.price_cached,
        "context_tokens": model.context_tokens,
        "max_output_tokens": model.max_output_tokens,
        "capabilities": model.capabilities,
        "preference": settings.preferences.get(route.id, 0.0),
    }
