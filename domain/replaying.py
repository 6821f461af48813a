"""What other settings would have chosen: recorded decisions, decided again offline."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from domain.errors import ModelNotFound
from domain.message import Usage
from domain.model import SCRIPTED, Catalog, Model, Provider
from domain.model_settings import ModelSettings
from domain.selection import Selection, Situation, select

WEIGHED_OUT = "costs more than "  # the one refusal that other settings can lift


@dataclass(frozen=True, slots=True)
class Decision:
    """One turn that `auto` served, as its trace tells. `usage` and `cost_usd` are what the answer took."""

    at: datetime
    chosen: str
    situation: dict[str, Any]
    candidates: list[dict[str, Any]]
    usage: Usage | None = None
    cost_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """What is to be tried: absent parts are as recorded. `catalog` replaces the models and prices of then."""

    name: str
    cost_quality: float | None = None
    preferences: dict[str, float] = field(default_factory=dict)
    catalog: Catalog | None = None


@dataclass(slots=True)
class Tally:
    """What a setting would have chosen over many decisions. `cost_usd`: the tokens of then at the chosen prices."""

    name: str
    turns: int = 0
    changed: int = 0
    unpriced: int = 0
    unserved: int = 0
    cost_usd: Decimal = Decimal(0)
    models: Counter[str] = field(default_factory=Counter)

    def add(self, decision: Decision, chosen: Selection | None) -> None:
        self.turns += 1
        if chosen is None:
            self.unserved += 1
            return
        self.models[chosen.route.id] += 1
        self.changed += chosen.route.id != decision.chosen
        cost = chosen.route.model.cost_usd(tokens_at(decision, chosen.route.id), decision.at)
        if cost is None:
            self.unpriced += 1
        else:
            self.cost_usd += cost


def replay(decision: Decision, setting: Setting) -> Selection | None:
    """The choice under `setting`; None where nothing could have answered."""
    known = decision.situation
    dial = known.get("cost_quality") if setting.cost_quality is None else setting.cost_quality
    recorded = setting.catalog is None
    situation = Situation(
        settings=ModelSettings(
            allowed=_open(decision) if recorded else None, cost_quality=dial, preferences=setting.preferences
        ),
        prompt_tokens=int(known.get("prompt_tokens") or 0),
        answer_tokens=known.get("answer_tokens"),
        needs=frozenset(known.get("needs") or ["chat"]) if setting.catalog else frozenset({"chat"}),
        complexity=known.get("complexity"),
        current=known.get("current"),
        shared_tokens=int(known.get("shared_tokens") or 0),
        now=decision.at,
    )
    try:
        return select(setting.catalog or _catalog(known), "auto", None, situation)
    except ModelNotFound:
        return None


def recorded(decisions: Iterable[Decision]) -> Tally:
    """What was chosen then, and what it cost by the ledger."""
    tally = Tally("recorded")
    for decision in decisions:
        tally.turns += 1
        tally.models[decision.chosen] += 1
        if decision.cost_usd is None:
            tally.unpriced += 1
        else:
            tally.cost_usd += decision.cost_usd
    return tally


def tokens_at(decision: Decision, model: str) -> Usage | None:
    """The answer's tokens, had `model` given it: another model had nothing of the prompt cached."""
    if decision.usage is None or model == decision.chosen:
        return decision.usage
    return decision.usage.model_copy(update={"cached_tokens": 0})


def _open(decision: Decision) -> list[str]:
    """The candidates of then that could have answered; those weighed out by their price may come back."""
    return [
        str(one["model"])
        for one in decision.candidates
        if one.get("allowed") or str(one.get("reason") or "").startswith(WEIGHED_OUT)
    ]


def _catalog(known: dict[str, Any]) -> Catalog:
    models = [
        Model(
            id=str(one["model"]),
            price_in=one.get("price_in"),
            price_out=one.get("price_out"),
            price_cached=one.get("price_cached"),
            quality=one.get("quality"),
            context_tokens=10**9,  # what did not fit then is not open now
        )
        for one in known.get("candidates") or []
        if one["model"] != SCRIPTED
    ]
    return Catalog(providers=[Provider(name="recorded", kind="vllm", models=models)])
