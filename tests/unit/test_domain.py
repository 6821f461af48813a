"""The domain's own rules, as properties."""

import pickle
from decimal import Decimal
from inspect import signature

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import errors
from domain.context import MESSAGE_OVERHEAD, Remembered, build_prompt, estimate_tokens
from domain.errors import IllegalMove, ModelNotFound
from domain.events import DELTA, Event, Position, parse_event_id, replay
from domain.ids import is_id, new_id
from domain.message import Usage
from domain.model import Catalog, parse_catalog
from domain.selection import select
from domain.turn import MOVES, TurnMove, TurnStatus, advance


@given(st.lists(st.sampled_from(TurnMove), max_size=6))
def test_a_turn_only_moves_forward_and_ends_once(moves):
    status, seen = TurnStatus.QUEUED, [TurnStatus.QUEUED]
    for move in moves:
        try:
            status = advance(status, move)
        except IllegalMove:
            assert (status, move) not in MOVES
            continue
        assert status not in seen, "a state came back"
        seen.append(status)
    assert sum(state.ended for state in seen) <= 1


def test_every_error_survives_its_journey_between_processes():
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.BrainError):
            needed = [one for one in signature(kind).parameters.values() if one.kind is one.POSITIONAL_OR_KEYWORD]
            made = kind(*["words"] * (len(needed) or 1))
            again = pickle.loads(pickle.dumps(made))  # noqa: S301
            assert type(again) is kind and str(again) == str(made) and "words" in str(made)
            assert needed or str(kind())


def test_ids_sort_by_creation_and_are_recognized():
    ids = [new_id("turn") for _ in range(200)]
    assert len(set(ids)) == 200 and all(is_id(value, "turn") and not is_id(value, "conv") for value in ids)
    assert [value[:17] for value in ids] == sorted(value[:17] for value in ids)
    assert not is_id("turn_zz", "turn") and not is_id("turn_" + "0" * 31 + "g", "turn")


words = st.text(min_size=1, max_size=30)


@given(st.lists(words, min_size=1, max_size=12), st.booleans())
def test_a_layout_replays_every_character_once(deltas, reset):
    text = "".join(deltas)
    layout = [{"type": "turn.reset", "reason": "x"} if reset else {"type": "turn.accepted"}, *map(len, deltas)]
    events = replay("turn_1", 2, layout, text)
    assert [event.n for event in events] == list(range(1, len(deltas) + 2))
    assert [event.data["text"] for event in events if event.type == DELTA] == deltas


@given(st.integers(1, 9), st.integers(1, 10**6))
def test_an_event_id_names_its_position(attempt, n):
    event = Event("turn_1", attempt, n, DELTA, {})
    assert parse_event_id(event.id, "turn_1") == Position(attempt, n)
    assert parse_event_id(event.id, "turn_2") is None


@pytest.mark.parametrize("value", ["", "turn_1", "turn_1/1", "turn_1/0/1", "turn_1/1/0", "turn_1/-1/2", "turn_1/1/²"])
def test_a_malformed_event_id_is_none(value):
    assert parse_event_id(value, "turn_1") is None


def conversation(turns, size=40):
    history = []
    for i in range(turns):
        history.append(Remembered.of(2 * i + 1, 2 * i + 1, "user", f"q{i} " + "x" * size))
        history.append(Remembered.of(2 * i + 1, 2 * i + 2, "assistant", f"a{i} " + "y" * size))
    return history


@given(st.integers(2, 60), st.integers(100, 600), st.integers(4, 40))
def test_a_prompt_fits_its_budget_and_ends_with_the_turns_own_message(turns, budget, most):
    history = conversation(turns)[:-1]  # the last question has no answer yet
    order = history[-1].order
    prompt = build_prompt("be kind", history, order, 1, budget, most)
    own = history[-1].tokens + estimate_tokens("be kind") + MESSAGE_OVERHEAD
    assert prompt.tokens <= max(budget, own) and len(prompt.messages) - 1 <= max(most, 2)
    assert prompt.messages[-1]["content"] == history[-1].content
    assert prompt.messages[1]["role"] == "user"


def test_the_beginning_of_a_prompt_stays_the_same_and_history_goes_in_blocks():
    history, window_from, changes, previous = conversation(200), 1, 0, None
    for i in range(200):
        order = 2 * i + 1
        prompt = build_prompt("system", history, order, window_from, 1000)
        told = prompt.messages
        if previous is not None and told[: len(previous)] != previous:
            changes += 1
        previous, window_from = told, prompt.window_from
    assert changes < 200 / 8


def test_history_is_told_in_order_of_turns_not_of_commits():
    history = [
        Remembered.of(1, 1, "user", "one"),
        Remembered.of(2, 2, "user", "two"),
        Remembered.of(1, 3, "assistant", "answer one"),
    ]
    prompt = build_prompt(None, history, 2, 1, 1000)
    assert [message["content"] for message in prompt.messages] == ["one", "answer one", "two"]


CONFIG = {
    "providers": [
        {
            "name": "acme",
            "base_url": "http://x/v1",
            "key": "${ACME_KEY}",
            "models": [{"id": "small", "price_in": 0.1, "price_out": 0.4}, {"id": "gpt-*"}],
        }
    ],
    "routing": {"fallback": ["small", "scripted"]},
}


def test_models_are_found_by_name_then_by_pattern():
    catalog = parse_catalog(CONFIG)
    assert catalog.find("small").upstream == "small"
    assert catalog.find("gpt-5").model.is_pattern
    assert catalog.find("other") is None and catalog.ids() == ["small", "scripted"]


def test_auto_takes_the_first_model_and_scripted_where_none_is_configured():
    assert select(parse_catalog(CONFIG), "auto").route.id == "small"
    assert select(Catalog(), "auto").route.id == "scripted"
    with pytest.raises(ModelNotFound):
        select(Catalog(), "gpt-5")


def test_a_fallback_chain_serves_auto_only():
    catalog = parse_catalog(CONFIG)
    assert [route.id for route in select(catalog, "auto").fallback] == ["scripted"]
    assert select(catalog, "gpt-5").fallback == ()


def test_a_literal_key_is_refused():
    with pytest.raises(ValueError, match=r"\$\{NAME\}"):
        parse_catalog({"providers": [{"name": "a", "base_url": "http://x", "key": "sk-secret"}]})


def test_a_reply_costs_what_its_tokens_cost_and_nothing_is_known_without_a_price():
    model = parse_catalog(CONFIG).find("small").model
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=500_000)
    assert model.cost_usd(usage) == Decimal("0.3")
    assert parse_catalog(CONFIG).find("gpt-5").model.cost_usd(usage) is None
