"""What calls cost, and what is held for them before."""

from datetime import UTC, datetime
from decimal import Decimal

from domain.generation import Attempt, Outcome
from domain.ledger import bounded, charges, charges_of, most_tokens, reservation, total
from domain.message import Usage
from domain.model import Catalog, parse_catalog

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
CATALOG: Catalog = parse_catalog(
    {
        "providers": [
            {
                "name": "acme",
                "base_url": "http://127.0.0.1:9/v1",
                "models": [
                    {
                        "id": "small",
                        "price_in": 0.1,
                        "price_out": 0.4,
                        "price_cached": 0.05,
                        "context_tokens": 1000,
                        "max_output_tokens": 200,
                        "prices": [{"from": NEW_YEAR.isoformat(), "price_in": 1, "price_out": 4}],
                    },
                    {"id": "dear", "price_in": 10, "price_out": 40, "context_tokens": 1000},
                    {"id": "unpriced"},
                ],
            }
        ]
    }
)
USAGE = Usage(prompt_tokens=100, cached_tokens=40, completion_tokens=7, total_tokens=107)


def attempt(model="small", usage: Usage | None = USAGE, at: datetime = NEW_YEAR, **fields) -> Attempt:
    return Attempt(model, "acme", "ok", None, at.timestamp(), None, 1.0, usage=usage, **fields)


def routes(*ids):
    return [CATALOG.find(one) for one in ids]


def test_each_call_costs_what_held_when_it_began():
    before = NEW_YEAR.replace(year=2025)
    found = charges(CATALOG, [attempt(at=before), attempt(), attempt("unpriced"), attempt("gone")])
    assert [one.cost_usd for one in found] == [
        (60 * Decimal("0.1") + 40 * Decimal("0.05") + 7 * Decimal("0.4")) / 1_000_000,
        Decimal(128) / 1_000_000,
        None,
        None,
    ]
    assert total(found) == found[0].cost_usd + found[1].cost_usd
    assert total(found[2:]) is None


def test_calls_are_numbered_without_a_gap_so_that_later_ones_can_follow():
    found = charges(CATALOG, [attempt(usage=None), attempt(why="retry"), attempt(estimated=True)], first=3)
    assert [(one.call, one.why, one.estimated) for one in found] == [(3, "retry", False), (4, "first", True)]


def test_usage_that_no_call_tells_is_the_outcomes():
    (one,) = charges_of(CATALOG, Outcome("completed", "hi", "small", "stop", USAGE, True))
    assert (one.call, one.model, one.provider, one.usage, one.estimated) == (1, "small", "acme", USAGE, True)
    (told,) = charges_of(CATALOG, Outcome("completed", "hi", "small", "stop", USAGE, attempts=(attempt("dear"),)))
    assert told.model == "dear"
    assert charges_of(CATALOG, Outcome("failed")) == ()


def test_what_is_held_is_the_dearest_candidates_longest_answer():
    cheap = (100 * Decimal(1) + 200 * Decimal(4)) / 1_000_000
    assert reservation(routes("small"), 100, {}, NEW_YEAR) == cheap
    assert reservation(routes("small", "dear"), 100, {"max_tokens": 50}) == (100 * 10 + 50 * 40) / Decimal(1_000_000)
    assert reservation(routes("small"), 10**9, {"max_tokens": 10**6}) == Decimal(1000 * 1 + 1000 * 4) / 1_000_000
    assert reservation(routes("unpriced"), 100, {}) is None
    assert reservation([], 100, {}) is None


def test_no_tokenizer_counts_more_than_there_are_bytes():
    messages = [
        {"role": "user", "content": "größe"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]},
    ]
    assert most_tokens(messages) == 7 + 4 + len("[{'id': 'x'}]") + 4
    assert most_tokens([], [{"name": "f"}]) == len("[{'name': 'f'}]")


def test_a_models_default_is_what_is_held_for_and_told():
    provider = {
        "name": "acme",
        "base_url": "http://127.0.0.1:9/v1",
        "models": [
            {"id": "told", "price_in": 1, "price_out": 1, "defaults": {"max_tokens": 5000}},
            {"id": "plain", "price_in": 1, "price_out": 1, "max_output_tokens": 2000},
            {"id": "narrow", "price_in": 1, "price_out": 1, "context_tokens": 1000, "max_output_tokens": 1000},
            {"id": "free", "price_in": 0, "price_out": 0, "max_output_tokens": 10},
        ],
    }
    catalog = parse_catalog({"providers": [provider]})
    told, plain, narrow, free = (catalog.find(one) for one in ("told", "plain", "narrow", "free"))
    assert reservation([told], 0, {}) == Decimal(5000) / 1_000_000
    assert bounded([told], {"seed": 1}) == {"seed": 1, "max_tokens": 5000}
    assert bounded([told, plain, free], {}) == {"max_tokens": 2000}
    assert bounded([narrow], {}) == {"max_tokens": 500}, "the prompt may have the other half"
    assert bounded([told, plain], {"max_tokens": 9}) == {"max_tokens": 9}
    assert bounded([free], {}) == {}
