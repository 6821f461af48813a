"""Choosing a model: what `auto` may take, what it takes, and why."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import BudgetExceeded, ModelNotFound
from domain.model import Catalog, Model, Prices, Provider, Routing, parse_catalog
from domain.model_settings import ModelSettings
from domain.selection import Situation, select

CHEAP = Model(id="cheap", price_in=0.1, price_out=0.4, quality=0.4)
STRONG = Model(id="strong", price_in=5, price_out=15, quality=0.9, capabilities=["chat", "tools"])


def catalog(*models: Model, **routing: object) -> Catalog:
    provider = Provider(name="acme", base_url="http://x/v1", models=list(models) or [CHEAP, STRONG])
    return Catalog(providers=[provider], routing=Routing.model_validate(routing))


def at(complexity: float | None = None, **settings: object) -> Situation:
    return Situation(
        settings=ModelSettings.model_validate(settings), complexity=complexity, prompt_tokens=100, answer_tokens=200
    )


def reasons(found: object) -> dict[str, str]:
    return {one["model"]: one["reason"] for one in found.candidates}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("dial", "complexity", "chosen"),
    [(0.5, 0.2, "cheap"), (0.5, 0.8, "strong"), (0.1, 0.8, "cheap"), (0.9, 0.2, "strong"), (0, 1, "cheap")],
)
def test_the_stronger_of_two_answers_where_complexity_is_above_what_the_dial_leaves(dial, complexity, chosen):
    assert select(catalog(), "auto", None, at(complexity, cost_quality=dial)).route.id == chosen


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_harder_message_never_gets_a_weaker_model(dial, one, other):
    easy, hard = sorted((one, other))
    chosen = [select(catalog(), "auto", None, at(c, cost_quality=dial)).route.model.quality for c in (easy, hard)]
    assert chosen[0] <= chosen[1]


prices = st.sampled_from([0.0, 0.1, 0.5, 1.0, 5.0, 20.0])
models = st.lists(
    st.builds(
        lambda i, price_in, price_out, quality: Model(id=i, price_in=price_in, price_out=price_out, quality=quality),
        st.sampled_from("abcdef"),
        prices,
        prices,
        st.sampled_from([0.1, 0.4, 0.6, 0.9]),
    ),
    min_size=2,
    max_size=6,
    unique_by=lambda model: model.id,
)


@given(models, st.floats(0, 1), st.floats(0, 1))
def test_nobody_pays_more_for_less(offered, dial, complexity):
    found = select(catalog(*offered), "auto", None, at(complexity, cost_quality=dial))
    cost = {one["model"]: one["estimated_cost_usd"] for one in found.candidates}
    for other in offered:
        dearer = cost[found.route.id] > cost[other.id]
        assert not (dearer and other.quality >= found.route.model.quality), (found.route.id, other.id)


def test_leaving_a_cached_prefix_must_pay():
    near = [
        Model(id="a", price_in=1, price_out=1, price_cached=0.1, quality=0.8, context_tokens=32_000),
        Model(id="b", price_in=0.9, price_out=0.9, price_cached=0.1, quality=0.7, context_tokens=32_000),
    ]
    situation = at(0.3, cost_quality=0.5)
    assert select(catalog(*near), "auto", None, situation).route.id == "b"
    talking = Situation(
        settings=situation.settings,
        complexity=0.3,
        prompt_tokens=10_000,
        answer_tokens=200,
        current="a",
        shared_tokens=9_900,
    )
    found = select(catalog(*near), "auto", None, talking)
    assert found.route.id == "a"
    assert "costs more than a and is no better" in reasons(found)["b"]


def test_every_refusal_has_its_reason():
    offered = [
        CHEAP,
        STRONG,
        Model(id="small", price_in=0, price_out=0, quality=0.1, context_tokens=64, max_output_tokens=16),
        Model(id="other", price_in=1, price_out=1, quality=0.5),
        Model(id="dear", price_in=5000, price_out=5000, quality=1),
    ]
    situation = Situation(
        settings=ModelSettings(allowed=["cheap", "strong", "small", "dear"]),
        prompt_tokens=100,
        answer_tokens=200,
        unhealthy=frozenset({"acme/cheap"}),
        budget_usd=0.5,
        complexity=0.5,
    )
    found = select(catalog(*offered), "auto", None, situation)
    assert found.route.id == "strong"
    assert reasons(found) | {"strong": ""} == {
        "cheap": "its provider is failing",
        "strong": "",
        "small": "the prompt of about 100 tokens does not fit",
        "other": "not allowed for this tenant",
        "dear": "would exceed the budget",
        "scripted": "not allowed for this tenant",
    }
    assert [one["allowed"] for one in found.candidates] == [False, True, False, False, False, False]


def test_what_is_needed_must_be_there():
    situation = Situation(needs=frozenset({"chat", "tools"}))
    assert select(catalog(), "auto", None, situation).route.id == "strong"
    with pytest.raises(ModelNotFound):
        select(catalog(), "auto", None, Situation(needs=frozenset({"images"})))


def test_a_tenant_has_its_own_default_chain_and_models():
    found = select(
        catalog(fallback=["scripted"]), "auto", None, at(0.9, default="cheap", fallback=["strong", "scripted"])
    )
    assert (found.route.id, [one.id for one in found.fallback]) == ("cheap", ["strong", "scripted"])
    found = select(catalog(fallback=["scripted"]), "auto", None, at(0.9, fallback=[]))
    assert found.fallback == ()
    with pytest.raises(ModelNotFound):
        select(catalog(), "strong", None, at(allowed=["cheap"]))


def test_a_preference_moves_the_choice():
    assert select(catalog(), "auto", None, at(0.8)).route.id == "strong"
    assert select(catalog(), "auto", None, at(0.8, preferences={"cheap": 0.9})).route.id == "cheap"


def test_a_default_that_is_failing_is_not_taken():
    found = select(
        catalog(default="strong"), "auto", None, Situation(unhealthy=frozenset({"acme/strong"}), complexity=0.9)
    )
    assert found.route.id == "cheap"


def test_a_chain_alone_serves_where_no_candidate_is_left():
    config = {
        "providers": [{"name": "a", "base_url": "http://x/v1", "models": [{"id": "gpt-*"}]}],
        "routing": {"fallback": ["gpt-5", "scripted"]},
    }
    found = select(parse_catalog(config), "auto")
    assert (found.route.id, [one.id for one in found.fallback]) == ("scripted", ["gpt-5"])
    only = select(parse_catalog(config), "auto", None, at(allowed=["gpt-*"]))
    assert only.route.id == "gpt-5"


def test_prices_hold_from_their_date_on():
    later = datetime(2027, 1, 1, tzinfo=UTC)
    model = Model(
        id="m", price_in=1, price_out=1, prices=[Prices.model_validate({"from": later, "price_in": 9, "price_out": 9})]
    )
    before, after = (
        select(catalog(model), "m", None, Situation(prompt_tokens=1_000_000, answer_tokens=1, now=now)).candidates[0]
        for now in (datetime(2026, 12, 31, tzinfo=UTC), later)
    )
    assert before["estimated_cost_usd"] == pytest.approx(1, rel=1e-3)
    assert after["estimated_cost_usd"] == pytest.approx(9, rel=1e-3)


def test_refused_models_are_not_taken_for_none():
    """The built-in model stands in for no model at all, not for one that the budget forbids."""
    poor = Situation(prompt_tokens=100, budget_usd=1e-9)
    with pytest.raises(BudgetExceeded):
        select(catalog(), "auto", None, poor)
    found = select(catalog(fallback=["scripted"]), "auto", None, poor)
    assert (found.route.id, found.reason) == ("scripted", "no candidate is left: the first of the fallback chain")
    with pytest.raises(ModelNotFound, match="cheap the prompt of about 100000 tokens does not fit"):
        select(catalog(CHEAP), "auto", None, Situation(prompt_tokens=100_000))
    only = select(catalog(), "auto", None, at(allowed=["scripted"]))
    assert (only.route.id, only.reason) == ("scripted", "no language model is configured")


def test_a_failing_model_is_asked_where_there_is_no_other():
    down = frozenset({"acme/cheap", "acme/strong"})
    found = select(catalog(), "auto", None, Situation(unhealthy=down))
    assert (found.route.id, found.fallback) == ("cheap", ())
    with pytest.raises(BudgetExceeded):  # the budget holds for those too
        select(catalog(fallback=["strong"]), "auto", None, Situation(unhealthy=down, prompt_tokens=9, budget_usd=1e-9))


def test_no_answer_is_estimated_longer_than_the_context():
    model = Model(id="m", price_in=0, price_out=1, context_tokens=1000)
    (told,) = select(catalog(model), "m", None, Situation(answer_tokens=10**6)).candidates
    assert told["estimated_cost_usd"] == pytest.approx(0.001)
