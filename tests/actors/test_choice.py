"""Which model answers: the tenant's rules, complexity, health and the conversation's prefix decide, and are told."""

import pytest

from domain.errors import ModelNotFound, Unavailable
from domain.replaying import Decision, Setting, replay
from tests.actors.conftest import Rules
from tests.actors.test_conversations import _said, eventually
from tests.storage.conftest import make_conversation, make_send
from tests.storage.test_ownership import messages


@pytest.fixture
def key(database_url, tenant):
    return make_conversation(database_url, tenant)


@pytest.fixture
def open_choice(world):
    """`auto` weighs the models: neither tenant nor routing has a default."""
    world.rules.are(default="auto", allowed=["cheap", "strong"])
    return world


async def ask(host, key, text="hello", **fields):
    return await host.send(make_send(key, text, wait=True, **fields))


async def test_an_easy_message_goes_to_the_cheap_model_and_a_hard_one_to_the_strong(open_choice, key):
    world, host = open_choice, await open_choice.host()
    world.classifier.complexity = 0.1
    assert (await ask(host, key)).message.model == "cheap"
    world.classifier.complexity = 0.9
    assert (await ask(host, key)).message.model == "strong"
    world.rules.are(default="auto", allowed=["cheap", "strong"], cost_quality=0)
    assert (await ask(host, key)).message.model == "cheap"


async def test_a_failing_model_is_passed_over(open_choice, key):
    world, host = open_choice, await open_choice.host()
    world.classifier.complexity, world.vitals.failing = 0.9, frozenset({"m/strong"})
    ended = await ask(host, key)
    assert ended.message.model == "cheap"
    trace = await world.trace(key.tenant, ended.turn.id)
    assert {one["model"]: one["reason"] for one in trace["candidates"]}["strong"] == "its provider is failing"


async def test_the_conversations_model_is_kept_while_leaving_it_does_not_pay(open_choice, key):
    world, host = open_choice, await open_choice.host()
    world.classifier.complexity = 0.51  # a little more than the dial leaves: on its own, the strong one
    assert (await ask(host, key)).message.model == "strong"
    world.classifier.complexity = 0.49
    ended = await ask(host, key)
    assert (
        ended.message.model == "strong"
        and "kept in this conversation" in (await world.trace(key.tenant, ended.turn.id))["reason"]
    )
    other = make_conversation(world.database_url, key.tenant)
    assert (await ask(host, other)).message.model == "cheap"


async def test_the_next_owner_keeps_the_conversations_model(open_choice, key):
    world, host = open_choice, await open_choice.host()
    world.classifier.complexity = 0.51
    await ask(host, key)
    world.classifier.complexity = 0.49
    await world.kill(host)
    assert (await ask(await world.host(), key)).message.model == "strong"


async def test_the_trace_says_how_the_choice_was_made_and_replays_to_the_same_model(open_choice, key):
    world, host = open_choice, await open_choice.host()
    for complexity in (0.2, 0.8):
        world.classifier.complexity = complexity
        ended = await ask(host, key, parameters={"max_tokens": 50})
        trace = await world.trace(key.tenant, ended.turn.id)
        situation = trace["situation"]
        assert (situation["requested"], situation["complexity"]) == ("auto", complexity)
        assert (situation["answer_tokens"], situation["needs"], situation["cost_quality"]) == (50, ["chat"], 0.5)
        assert situation["prompt_tokens"] == sum(one["tokens"] for one in trace["context"]["elements"])
        prices = {one["model"]: (one["price_in"], one["price_out"]) for one in situation["candidates"]}
        assert prices["cheap"] == (0.1, 0.4) and prices["strong"] == (5, 15)
        decision = Decision(ended.turn.created_at, trace["chosen"], situation, trace["candidates"])
        assert replay(decision, Setting("as it was")).route.id == ended.message.model
    assert replay(decision, Setting("cheaper", cost_quality=0.0)).route.id == "cheap"


async def test_the_trace_counts_the_prefix_that_the_model_has_read(open_choice, key):
    world, host = open_choice, await open_choice.host()
    world.classifier.complexity = 0.9
    shared = []
    for _ in range(3):
        trace = await world.trace(key.tenant, (await ask(host, key, "x" * 400)).turn.id)
        shared.append(trace["context"]["shared_prefix_tokens"])
    assert shared[0] == 0 and shared[1] == 104 and shared[2] > 208
    world.classifier.complexity = 0.0
    other = await world.trace(key.tenant, (await ask(host, key, "x" * 400)).turn.id)
    assert other["chosen"] == "cheap" and other["context"]["shared_prefix_tokens"] == 0
    assert other["situation"]["current"] == "strong" and other["situation"]["shared_tokens"] > shared[2]


async def test_a_model_that_the_tenant_may_not_use_is_refused_before_anything_is_kept(open_choice, key):
    world, host = open_choice, await open_choice.host()
    with pytest.raises(ModelNotFound):
        await ask(host, key, model="mock,n=3")
    world.rules.are()
    assert (await ask(host, key, model="mock,n=3")).user_message.seq == 1


async def test_a_tenants_own_fallback_chain_serves_auto(world, key):
    world.rules.are(default="mock,fault=status,status=400", fallback=["cheap"])
    ended = await ask(await world.host(), key)
    assert ended.message.model == "cheap"
    trace = await world.trace(key.tenant, ended.turn.id)
    assert trace["situation"]["fallback"] == ["cheap"] and len(trace["attempts"]) == 2


async def test_while_the_rules_cannot_be_read_nothing_is_accepted(world, key):
    host, send = await world.host(), make_send(key, "hello", wait=True)
    world.rules.current = None
    with pytest.raises(Unavailable):
        await host.send(send)
    assert await messages(world.pool, key) == []
    world.rules.are()
    ended = await host.send(send)
    assert ended.turn.status == "completed" and not ended.replayed


async def test_a_turn_waits_for_rules_that_its_next_owner_cannot_read(world, key):
    class Away(Rules):
        refused = 0

        async def settings(self, tenant):
            self.refused += self.current is None
            return await super().settings(tenant)

    first = await world.host()
    accepted = await first.send(make_send(key, "both die", model="goes-on"))
    await eventually(lambda: _said(world, key, accepted.turn.id, 3))
    await world.kill(first)
    await world.llm.die()
    world.rules = Away(None)
    await world.host()
    await eventually(lambda: _refused(world.rules, 5))  # more often than a turn has attempts
    world.rules.are()
    ended = await eventually(lambda: world.store.ended(key.tenant, accepted.turn.id), 20)
    assert (ended.turn.status, ended.turn.attempt) == ("completed", 1)


async def _refused(rules, times):
    return rules.refused >= times


async def test_a_long_history_is_cut_to_the_largest_model_that_may_answer(world, key):
    world.rules.are(default="auto", allowed=["cheap"])  # 8192 tokens, 1024 of them for the answer
    host = await world.host()
    for _ in range(3):
        ended = await ask(host, key, "y" * 12_000)
        assert ended.message.model == "cheap"
    trace = await world.trace(key.tenant, ended.turn.id)
    assert {one["kind"]: one["included"] for one in trace["context"]["elements"][:1]} == {"history": False}
    assert trace["situation"]["prompt_tokens"] <= 7168


async def test_only_models_that_can_take_the_prompt_are_considered(world, key):
    host = await world.host()
    for _ in range(2):
        await ask(host, key, "z" * 20_000, model="wide")
    world.rules.are(default="auto", allowed=["cheap", "wide"], cost_quality=0)
    ended = await ask(host, key, "short")
    assert ended.message.model == "wide"
    trace = await world.trace(key.tenant, ended.turn.id)
    reasons = {one["model"]: one["reason"] for one in trace["candidates"]}
    assert "does not fit" in reasons["cheap"]
