"""Before a message stands: whether its models may be used, what is held of the budget, and a patient accept."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any

from actors.judging import VERDICT
from actors.parts import Parts
from actors.window import Window
from domain.commands import Send, UnfinishedTurn
from domain.context import MESSAGE_OVERHEAD
from domain.context.fence import NOTE
from domain.context.material import EXCHANGE
from domain.conversation import ConversationKey
from domain.errors import BudgetExceeded, CommitUnknown, MessageGone, ModelNotFound, NotFound, Unavailable
from domain.ledger import reservation
from domain.model import AUTO, SCRIPTED, Catalog, Route
from domain.model_settings import ModelSettings
from domain.ports import AcceptedTurn, ConversationStore, Ownership
from domain.product_facts import ROW

PATIENCE = (0.05, 0.2, 0.75)  # seconds between tries


def unfinished(accepted: AcceptedTurn, send: Send, held: Decimal | None) -> UnfinishedTurn:
    """The turn with all that its owner needs to bring it to its end."""
    return UnfinishedTurn(
        accepted.turn,
        accepted.user_message,
        send.model,
        send.parameters,
        send.live,
        send.understand,
        regenerates=send.regenerates,
        models=send.models,
        keep=send.keep,
        reserved=held,
    )


def check_models(catalog: Catalog, settings: ModelSettings, send: Send) -> None:
    """Raises `ModelNotFound` for a model that is not there or that the tenant may not use."""
    for model in (send.model, *send.models):
        if model != AUTO and (catalog.find(model) is None or not settings.allows(model)):
            raise ModelNotFound(f"the model {model!r} does not exist or is not allowed here")


def reservations(parts: Parts, settings: ModelSettings, window: Window, send: Send) -> list[Decimal | None]:
    """USD to hold for the message where its tenant has a hard budget: what its dearest model may cost; for `auto`,
    should that be refused, what the cheapest one may."""
    if settings.budget is None or settings.budget.hard_usd is None:
        return [None]
    tokens, parameters = _most_tokens(parts, window, send), send.parameters
    if send.model != AUTO or send.models:
        sides = [_routes(parts.catalog, settings, [model]) for model in send.models or (send.model,)]
        calls = [reservation(routes, tokens, parameters) for routes in sides]
        if send.models and send.keep == "best":
            calls.append(_judging(parts.catalog, settings, sides, tokens, parameters))
        known = [cost for cost in calls if cost is not None]
        return [sum(known, Decimal()) if known else None]
    routing = parts.catalog.routing
    fallback = routing.fallback if settings.fallback is None else settings.fallback
    routes = _routes(parts.catalog, settings, [settings.default or routing.default, AUTO, *fallback])
    costs = {
        reservation([route], tokens, parameters) or Decimal() for route in routes if route.provider.kind != SCRIPTED
    }
    return [max(costs), min(costs)] if len(costs) > 1 else [*costs] or [None]


async def accept_within(
    store: ConversationStore, key: ConversationKey, owner: Ownership, send: Send, reserves: Sequence[Decimal | None]
) -> tuple[AcceptedTurn, Decimal | None]:
    """Accept with the first of `reserves` that the budget allows; also what is held. Raises `BudgetExceeded`."""
    for reserve in reserves[:-1]:
        with suppress(BudgetExceeded):
            return await accept_patiently(store, key, owner, replace(send, reserve=reserve)), reserve
    return await accept_patiently(store, key, owner, replace(send, reserve=reserves[-1])), reserves[-1]


async def accept_patiently(
    store: ConversationStore, key: ConversationKey, owner: Ownership, send: Send
) -> AcceptedTurn:
    """Accept, again after a lost connection: the key makes a repeated accept find what the first one committed."""
    unknown: CommitUnknown | None = None
    for pause in (*PATIENCE, None):
        try:
            return await store.accept(key, owner, send)
        except CommitUnknown as error:
            unknown = error
        except NotFound as error:
            if send.regenerates is None:
                raise
            raise MessageGone("there is no such message, or it answers none") from error  # the conversation may stand
        except Unavailable:
            if pause is None:
                raise (unknown or Unavailable("the database cannot be reached")) from None
        if pause is None:
            raise unknown or Unavailable("the database cannot be reached")
        await asyncio.sleep(pause)
    raise AssertionError("unreachable")


def _judging(
    catalog: Catalog, settings: ModelSettings, sides: list[list[Route]], tokens: int, parameters: dict[str, Any]
) -> Decimal | None:
    """What the judge may cost, who reads the message and all answers. Its tokenizer may count twice what theirs did."""
    asked = parameters.get("max_tokens")
    answers = sum(route.model.answer_tokens(asked) for routes in sides for route in routes)
    judge = _routes(catalog, settings, [settings.judge or catalog.routing.default])
    return reservation(judge, tokens + 2 * answers, {"max_tokens": VERDICT})


def _most_tokens(parts: Parts, window: Window, send: Send) -> int:
    """No tokenizer counts more tokens than bytes; a chat's format adds some to each message, and the marks of data to
    each line of it."""
    texts = [window.instructions or "", send.content, *(message.content for message in window.messages)]
    told = [section.text for section in window.summary.sections] + [fact.value for fact in window.summary.facts]
    marks = 2 * sum(len(text.encode()) + len(NOTE) for text in told)
    if parts.recalls(window.conversation.user_id):
        marks += 2 * (parts.limits.recalled * (EXCHANGE + 10) + len(NOTE))
    if parts.products is not None:
        marks += 2 * ((parts.limits.products + 1) * (ROW + 10) + len(NOTE))
    return marks + sum(len(text.encode()) + MESSAGE_OVERHEAD for text in texts)


def _routes(catalog: Catalog, settings: ModelSettings, models: list[str]) -> list[Route]:
    """What serves these ids, of which `auto` stands for all, as far as the tenant may use them."""
    named = [one for model in models for one in (catalog.ids() if model == AUTO else [model]) if settings.allows(one)]
    return [route for route in map(catalog.find, dict.fromkeys(named)) if route is not None]
