"""A tenant's hard budget: what is held before a turn, what is refused, and what is given back."""

import asyncio
import json

import psycopg
import pytest

from actors.turn import LiveTurn
from domain.errors import BudgetExceeded
from domain.ids import new_id
from tests.actors.test_conversations import FAST, _said, eventually
from tests.actors.test_lost_generations import ledger
from tests.storage.conftest import make_conversation, make_send


@pytest.fixture
def key(database_url, world):
    """A conversation of a tenant of its own: a budget is a tenant's."""
    tenant = new_id("ten")
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, 'spends')", (tenant,))
    return make_conversation(database_url, tenant)


def limit(world, key, hard, **rules):
    """As the service reads it, and as the accepting transaction does."""
    settings = {"budget": {"hard_usd": hard}, **rules}
    world.rules.are(**settings)
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "INSERT INTO brain.model_settings (tenant_id, settings) VALUES (%s, %s)"
            " ON CONFLICT (tenant_id) DO UPDATE SET settings = excluded.settings",
            (key.tenant, json.dumps(settings)),
        )


def money(world, key):
    with psycopg.connect(world.database_url) as connection:
        return connection.execute(
            "SELECT spent_usd, reserved_usd FROM brain.budgets WHERE tenant_id = %s", (key.tenant,)
        ).fetchone()


async def test_a_turn_that_could_cross_the_hard_limit_is_refused_and_keeps_nothing(world, key):
    limit(world, key, 0.00001)
    host = await world.host()
    send = make_send(key, "too dear", model="strong", wait=True)
    with pytest.raises(BudgetExceeded):
        await host.send(send)
    limit(world, key, 1.0)
    ended = await host.send(send)  # the key was freed
    assert ended.turn.status == "completed" and ended.user_message.seq == 1
    spent, reserved = money(world, key)
    row = (await ledger(world, key, ended.turn.id))[0]
    assert float(spent) == pytest.approx((row["prompt_tokens"] * 5 + row["completion_tokens"] * 15) / 1e6)
    assert reserved == 0


async def test_many_turns_at_once_never_spend_more_than_the_limit(world, key):
    hard = 0.04  # two of the reservations of `dear`, of which each holds a little more than 0.015, for a second
    limit(world, key, hard)
    host = await world.host()
    keys = [make_conversation(world.database_url, key.tenant) for _ in range(8)]
    found = await asyncio.gather(
        *(host.send(make_send(one, "at once", model="dear", wait=True)) for one in keys), return_exceptions=True
    )
    refused = [one for one in found if isinstance(one, BudgetExceeded)]
    completed = [one for one in found if one not in refused]
    assert refused and completed and all(one.turn.status == "completed" for one in completed)
    spent, reserved = money(world, key)
    assert 0 < spent <= hard and reserved == 0


async def test_auto_takes_what_the_budget_still_allows(world, key):
    rules = {"default": "auto", "allowed": ["cheap", "strong"], "cost_quality": 1.0}
    limit(world, key, 0.01, **rules)
    world.classifier.complexity = 1.0
    ended = await (await world.host()).send(make_send(key, "hard", wait=True))
    assert ended.message.model == "cheap"
    trace = await world.trace(key.tenant, ended.turn.id)
    assert {one["model"]: one["reason"] for one in trace["candidates"]}["strong"] == "would exceed the budget"
    limit(world, key, 1.0, **rules)
    assert (await world.hosts[-1].send(make_send(key, "hard", wait=True))).message.model == "strong"


async def test_models_side_by_side_are_held_for_together(world, key):
    limit(world, key, 0.017)  # `strong` may cost a little less, `wide` 0.002
    host = await world.host()
    assert (await host.send(make_send(key, "alone", model="strong", wait=True))).turn.status == "completed"
    with pytest.raises(BudgetExceeded):
        await host.send(make_send(key, "both", models=("strong", "wide", "cheap"), keep="all", wait=True))


async def test_what_has_no_price_is_not_held_up(world, key):
    limit(world, key, 0.0)
    assert (await (await world.host()).send(make_send(key, "free", model=FAST, wait=True))).turn.status == "completed"


async def test_a_cancelled_or_failed_turn_gives_back_what_was_held(world, key):
    limit(world, key, 1.0)
    host = await world.host()
    accepted = await host.send(make_send(key, "stop", model="priced-slow"))
    assert money(world, key)[1] > 0
    await host.cancel(key, accepted.turn.id)
    await host.send(make_send(key, "fails", model="mock,fault=status,status=400", wait=True))
    assert money(world, key)[1] == 0


async def test_no_answer_is_longer_than_what_was_held_for(world, key, monkeypatch):
    asked, generate = [], world.llm.generate

    async def listening(request):
        asked.append(request)
        return await generate(request)

    monkeypatch.setattr(world.llm, "generate", listening)
    host = await world.host()
    await host.send(make_send(key, "free of limits", model="strong", wait=True))
    limit(world, key, 1.0)
    for wanted in ({}, {"max_tokens": 7}):
        await host.send(make_send(key, "limited", model="strong", parameters=wanted, wait=True))
    assert [request.parameters for request in asked] == [{}, {"max_tokens": 1024}, {"max_tokens": 7}]


async def test_where_only_the_budget_forbids_every_model_nobody_answers_instead(world, key):
    limit(world, key, 0.00001, default="auto", allowed=["cheap", "strong", "scripted"], fallback=[])
    with pytest.raises(BudgetExceeded):
        await (await world.host()).send(make_send(key, "too dear", wait=True))


async def test_what_ran_when_its_conversation_was_deleted_is_charged_for(world, key):
    limit(world, key, 1.0)
    host = await world.host()
    running = await host.send(make_send(key, "deleted", model="priced-slow"))
    queued = await host.send(make_send(key, "behind", model="priced-slow"))
    await eventually(lambda: _said(world, key, running.turn.id, 3))
    await host.delete(key)
    (row,) = await ledger(world, key, running.turn.id)
    assert row["completion_tokens"] > 0 and await ledger(world, key, queued.turn.id) == []
    spent, reserved = money(world, key)
    assert spent > 0 and reserved == 0


async def test_the_next_owner_knows_what_is_held(world, key):
    limit(world, key, 1.0)
    first = await world.host()
    accepted = await first.send(make_send(key, "moves", model="priced-slow"))
    held = money(world, key)[1]
    found = await world.store.activate(key, first.id)
    assert [LiveTurn.of(asked).held for asked in found.unfinished] == [held] and held > 0
    assert accepted.turn.id == found.unfinished[0].turn.id
