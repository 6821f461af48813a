"""What calls of providers cost: one `Charge` a call, and what is held for a turn before it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from domain.carried import carried
from domain.context import MESSAGE_OVERHEAD
from domain.generation import Attempt, Outcome
from domain.message import Usage
from domain.model import Catalog, Route


@carried
@dataclass(frozen=True, slots=True)
class Charge:
    """One call of a provider in the ledger. `call` counts an attempt's calls from 1; `cost_usd` is exact.

    `estimated`: the provider never said what it counted. `cost_usd` is None where the model has no price.
    """

    call: int
    model: str
    provider: str | None
    why: str
    usage: Usage
    cost_usd: Decimal | None
    estimated: bool = False
    reply: bool = True


@carried
@dataclass(frozen=True, slots=True)
class Version:
    """An answer kept beside a turn's reply (`keep: all`)."""

    message_id: str
    content: str
    model: str
    usage: Usage | None = None
    cost_usd: float | None = None


def charges(catalog: Catalog, attempts: Sequence[Attempt], first: int = 1) -> tuple[Charge, ...]:
    """The calls that are charged for, in order and numbered from `first`, each by the prices of its time."""
    found: list[Charge] = []
    for attempt in attempts:
        if attempt.usage is None:
            continue
        route = catalog.find(attempt.model)
        when = datetime.fromtimestamp(attempt.started_at, UTC)
        cost = route.model.cost_usd(attempt.usage, when) if route else None
        found.append(
            Charge(
                first + len(found),
                attempt.model,
                attempt.provider,
                attempt.why,
                attempt.usage,
                cost,
                attempt.estimated,
                attempt.reply,
            )
        )
    return tuple(found)


def total(calls: Iterable[Charge]) -> Decimal | None:
    """USD of all calls together; None where none of them has a price."""
    costs = [call.cost_usd for call in calls if call.cost_usd is not None]
    return sum(costs, Decimal()) if costs else None


def reservation(
    routes: Sequence[Route], prompt_tokens: int, parameters: dict[str, Any], when: datetime | None = None
) -> Decimal | None:
    """USD that the dearest of `routes` may cost: the prompt without a cache, and the longest answer.

    None where none of them has a price. `prompt_tokens` must be no less than what any of their tokenizers counts.
    """
    wanted = parameters.get("max_tokens")
    worst: Decimal | None = None
    for route in routes:
        model = route.model
        answer = model.answer_tokens(wanted)
        prices = model.priced(when)
        if prices is None:
            continue
        dearest = Decimal(str(max(prices.price_in, prices.price_cached or 0)))
        cost = (
            min(prompt_tokens, model.context_tokens) * dearest + answer * Decimal(str(prices.price_out))
        ) / 1_000_000
        worst = cost if worst is None else max(worst, cost)
    return worst


def bounded(routes: Sequence[Route], parameters: dict[str, Any]) -> dict[str, Any]:
    """`parameters` with the longest answer told to the model: unasked, it may say more than `reservation` holds for.

    It is the shortest of those `routes` whose answers cost anything, for any of them may answer.
    """
    wanted = parameters.get("max_tokens")
    longest: list[int] = []
    for model in (route.model for route in routes):
        prices = model.priced()
        if prices is not None and prices.price_out > 0:
            asked = wanted or model.defaults.max_tokens
            longest.append(
                model.answer_tokens(asked or min(model.max_output_tokens, max(model.context_tokens // 2, 1)))
            )
    return {**parameters, "max_tokens": min(longest)} if longest else parameters


def charges_of(catalog: Catalog, outcome: Outcome, first: int = 1) -> tuple[Charge, ...]:
    """What a generation is charged for. Where its calls say nothing of their usage, the outcome's is the one call."""
    found = charges(catalog, outcome.attempts, first)
    if found or outcome.usage is None:
        return found
    route = catalog.find(outcome.model) if outcome.model else None
    cost = route.model.cost_usd(outcome.usage) if route else None
    name, provider = outcome.model or "", route.provider.name if route else None
    return (Charge(first, name, provider, "first", outcome.usage, cost, outcome.estimated),)


def most_tokens(messages: Sequence[dict[str, Any]], tools: Any = None) -> int:
    """No tokenizer counts more: none makes more tokens than there are bytes, beside what the format spends."""
    texts = [str(message.get("content") or "") + str(message.get("tool_calls") or "") for message in messages]
    return sum(len(text.encode()) + MESSAGE_OVERHEAD for text in texts) + len(str(tools or "").encode())
