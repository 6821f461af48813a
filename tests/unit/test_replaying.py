"""Recorded decisions, decided again under other settings."""

from datetime import UTC, datetime
from decimal import Decimal

from typer.testing import CliRunner

from domain.message import Usage
from domain.model import Catalog, Model, Provider
from domain.model_settings import ModelSettings
from domain.replaying import Decision, Setting, Tally, recorded, replay
from domain.selection import Situation, select
from serve_app.cli import app

MODELS = [
    {"model": "cheap", "price_in": 0.1, "price_out": 0.4, "quality": 0.4},
    {"model": "strong", "price_in": 5, "price_out": 15, "quality": 0.9},
    {"model": "scripted", "price_in": 0, "price_out": 0, "quality": None},
]


def decision(complexity: float, chosen: str, refused: dict[str, str] | None = None) -> Decision:
    refused = refused or {}
    return Decision(
        at=datetime(2026, 11, 1, tzinfo=UTC),
        chosen=chosen,
        situation={
            "complexity": complexity,
            "prompt_tokens": 1000,
            "answer_tokens": 500,
            "needs": ["chat"],
            "current": None,
            "shared_tokens": 0,
            "cost_quality": 0.5,
            "candidates": MODELS,
        },
        candidates=[
            {"model": one["model"], "allowed": one["model"] not in refused, "reason": refused.get(one["model"], "")}
            for one in MODELS
        ],
        usage=Usage(prompt_tokens=1000, cached_tokens=600, completion_tokens=100),
        cost_usd=Decimal("0.0065") if chosen == "strong" else Decimal("0.00014"),
    )


def test_the_setting_of_then_gives_the_choice_of_then():
    provider = Provider(
        name="acme",
        base_url="http://x/v1",
        models=[
            Model.model_validate({"id": one["model"]} | {k: v for k, v in one.items() if k != "model"})
            for one in MODELS[:2]
        ],
    )
    for complexity in (0.1, 0.4, 0.6, 0.9):
        situation = Situation(
            settings=ModelSettings(cost_quality=0.5), complexity=complexity, prompt_tokens=1000, answer_tokens=500
        )
        then = select(Catalog(providers=[provider]), "auto", None, situation)
        again = replay(decision(complexity, then.route.id), Setting("as then"))
        assert again.route.id == then.route.id


def test_another_dial_is_counted_and_priced_by_the_tokens_of_then():
    decisions = [decision(c / 10, "strong" if c > 5 else "cheap") for c in range(10)]
    tally = Tally("cheapest")
    for one in decisions:
        tally.add(one, replay(one, Setting("cheapest", cost_quality=0)))
    assert (tally.turns, tally.changed, dict(tally.models)) == (10, 4, {"cheap": 10})
    # One that changed lost its cached prefix, which has the price of any other token here: 0.1 + 0.04 for each.
    assert tally.cost_usd == 10 * (1000 * Decimal("0.1") + 100 * Decimal("0.4")) / 1_000_000
    assert recorded(decisions).cost_usd == 4 * Decimal("0.0065") + 6 * Decimal("0.00014")


def test_what_could_not_answer_then_cannot_now_and_what_was_only_dearer_can():
    failing = decision(0.9, "cheap", {"strong": "its provider is failing"})
    assert replay(failing, Setting("best", cost_quality=1)).route.id == "cheap"
    weighed = decision(0.9, "cheap", {"strong": "costs more than cheap and is no better"})
    assert replay(weighed, Setting("best", cost_quality=1)).route.id == "strong"
    other = Catalog(providers=[Provider(name="b", base_url="http://x/v1", models=[Model(id="new")])])
    assert replay(failing, Setting("other models", catalog=other)).route.id == "new"


def test_the_command_says_what_is_wrong_with_its_options():
    for arguments in (["--since", "yesterday-ish"], ["--prefer", "small"], ["--prefer", "small=3"]):
        found = CliRunner().invoke(app, ["route", "replay", *arguments])
        assert found.exit_code
        assert arguments[1] in str(found.exception)
