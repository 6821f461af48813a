"""Which model answers a completion of which nothing is kept: what it must be able to do, and the choice."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from domain.context import estimate_tokens
from domain.errors import BrainError, ModelNotFound
from domain.model import AUTO, SCRIPTED, Catalog, Route
from domain.ports import Understanding
from domain.selection import Selection, Situation, select
from domain.tenant import Caller
from serve_app.ingress.allowed import allowed_ids, route_of
from serve_app.ingress.errors import Problem, unknown_model
from serve_app.ingress.openai_bodies import ChatCompletion
from serve_app.ingress.openai_messages import Shaped, asked, images, tokens
from serve_app.ingress.parts import Parts

CLASSIFY = 2.0  # seconds
UNABLE = "unsupported_capability"


@dataclass(frozen=True, slots=True)
class Chosen:
    """`intent` is what the built-in model answers by; None for every other. `prompt_tokens` are an estimate."""

    selection: Selection
    intent: str | None
    prompt_tokens: int
    weight: float


async def choose(parts: Parts, caller: Caller, body: ChatCompletion, messages: list[Shaped]) -> Chosen:
    """Raises `Problem`: 404 for a model that is not there, 400 for one that cannot do what is asked."""
    situation = await _situation(parts, caller, body, messages)
    if body.model != AUTO:
        await route_of(parts, caller.tenant, body.model)
    selection = _selected(parts.catalog, body, messages, situation)
    understanding = None
    if selection.route.provider.kind == SCRIPTED or (body.model == AUTO and _contested(parts.catalog, selection)):
        understanding = await _understood(parts, caller.tenant, messages)
    if understanding is not None and understanding.complexity is not None and body.model == AUTO:
        situation = replace(situation, complexity=understanding.complexity)
        selection = _selected(parts.catalog, body, messages, situation)
    scripted = selection.route.provider.kind == SCRIPTED
    intent = understanding.intent.name if understanding is not None and scripted else None
    return Chosen(selection, intent, situation.prompt_tokens, situation.settings.weight)


def needs(body: ChatCompletion, messages: list[Shaped]) -> dict[str, str]:
    """The capabilities that are asked for beside `chat`, each with the field that asks for it."""
    found: dict[str, str] = {}
    if body.tools:
        found["tools"] = "tools"
    for index, message in enumerate(body.messages):
        if message.of_tools:
            found.setdefault("tools", f"messages.{index}")
    if body.wants_json:
        found["json"] = "response_format"
    for where, _ in images(messages):
        found.setdefault("images", where)
    return found


def refuse_unable(route: Route, body: ChatCompletion, messages: list[Shaped]) -> None:
    """Raise `Problem` 400 where the model cannot do what is asked."""
    for capability, param in needs(body, messages).items():
        if capability not in route.model.capabilities:
            raise Problem(400, f"{param}: the model {route.id!r} cannot do {capability}", param, UNABLE)
    for param, words in _combinations(route, body, messages):
        raise Problem(400, f"{param}: the model {route.id!r} {words}", param, UNABLE)


async def refuse_if_nobody(parts: Parts, caller: Caller, capability: str, param: str) -> None:
    """Raise `Problem` 400 where no model that `auto` may use has the capability."""
    routes = [parts.catalog.find(one) for one in await allowed_ids(parts, caller)]
    if not any(route is not None and capability in route.model.capabilities for route in routes):
        raise Problem(400, f"{param}: no model that `auto` may use can do {capability}", param, UNABLE)


def _combinations(route: Route, body: ChatCompletion, messages: list[Shaped]) -> list[tuple[str, str]]:
    """What this model's API cannot express, beside its capabilities: the field and why."""
    kind, found = route.provider.kind, list[tuple[str, str]]()
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    if kind == "openai" and route.model.api == "responses" and stops:
        found.append(("stop", "takes no stop sequences"))
    if kind == "anthropic" and not all(stop.strip() for stop in stops):
        found.append(("stop", "takes no stop sequences of white space alone"))
    if kind == "anthropic" and body.tools and body.response_format and body.response_format.type == "json_object":
        found.append(("response_format", "cannot take `tools` and `json_object` together; use `json_schema`"))
    if kind == "vllm":  # it would fetch the address from inside this service's own network
        found += [(where, "takes images as data: URLs only") for where, url in images(messages) if url[:5] != "data:"]
    return found


async def _situation(parts: Parts, caller: Caller, body: ChatCompletion, messages: list[Shaped]) -> Situation:
    settings = await parts.models.settings(caller.tenant)
    if settings.cost_quality is None:
        settings = settings.model_copy(update={"cost_quality": parts.catalog.routing.cost_quality})
    tools = [tool.model_dump_json() for tool in body.tools or ()]
    return Situation(
        settings=settings,
        prompt_tokens=tokens(messages) + sum(map(estimate_tokens, tools)),
        answer_tokens=body.max_completion_tokens or body.max_tokens,
        needs=frozenset({"chat", *needs(body, messages)}),
        unhealthy=parts.health.unhealthy(),
    )


def _selected(catalog: Catalog, body: ChatCompletion, messages: list[Shaped], situation: Situation) -> Selection:
    if body.model == AUTO:
        catalog = _able(catalog, lambda route: not _combinations(route, body, messages))
    try:
        selection = select(catalog, body.model, None, situation)
    except ModelNotFound:
        raise _nobody(catalog, body, messages, situation) from None
    if body.model != AUTO:
        refuse_unable(selection.route, body, messages)
    return selection


def _able(catalog: Catalog, can: Callable[[Route], bool]) -> Catalog:
    """The catalog without the models that cannot express the request; the same one where all can."""
    kept: list[Any] = []
    for provider in catalog.providers:
        models = [one for one in provider.models if can(Route(provider=provider, model=one, id=one.id))]
        kept.append(provider if len(models) == len(provider.models) else provider.model_copy(update={"models": models}))
    if all(new is old for new, old in zip(kept, catalog.providers, strict=True)):
        return catalog
    return catalog.model_copy(update={"providers": kept})


def _nobody(catalog: Catalog, body: ChatCompletion, messages: list[Shaped], situation: Situation) -> Problem:
    """Why no model was found: what nobody can do, or a prompt that fits none."""
    try:
        select(catalog, body.model, None, replace(situation, prompt_tokens=0))
    except ModelNotFound:
        wanted = needs(body, messages)
        if body.model != AUTO or not wanted:
            return unknown_model(body.model)
        param = next(iter(wanted.values()))
        return Problem(400, f"{param}: no model that `auto` may use can do {' and '.join(wanted)}", param, UNABLE)
    words = f"messages: a prompt of about {situation.prompt_tokens} tokens fits no model that `auto` may use"
    return Problem(400, words, "messages", "context_length_exceeded")


def _contested(catalog: Catalog, selection: Selection) -> bool:
    """Whether more than one language model could answer."""
    able = [catalog.find(one["model"]) for one in selection.candidates if one["score"] is not None]
    return sum(route is not None and route.provider.kind != SCRIPTED for route in able) > 1


async def _understood(parts: Parts, tenant: str, messages: list[Shaped]) -> Understanding | None:
    """What the user's last message is taken to mean; None where nobody says so in time."""
    text = asked(messages)
    if not text:
        return None
    try:
        async with asyncio.timeout(CLASSIFY):
            return await parts.classifier.classify(text, tenant)
    except (BrainError, TimeoutError):
        return None
