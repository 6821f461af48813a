"""Intents, trainings and heads on real SQL: one tenant's are nobody else's, and a job is done once."""

import asyncio
import os
import uuid
from dataclasses import replace

import psycopg
import pytest

from domain.errors import Fenced, IdempotencyMismatch, NameTaken, NotFound, Overloaded
from domain.ids import new_id
from domain.intents import NewHead, TrainingRequest
from domain.tenant import Caller
from domain.understanding import Example
from storage import intents as module
from storage.intent_heads import KEPT, PostgresHeads
from storage.intent_trainings import ATTEMPTS, MOST_QUEUED, NewTraining, PostgresTrainings
from storage.intents import NewIntent, PostgresIntents, TooManyIntents
from storage.pages import PageQuery

REQUEST = TrainingRequest(
    (Example("hello", "greeting"), Example("pay", "payment")),
    (Example("hi", "greeting"),),
    {"greeting": {"description": "says hello", "slots": []}},
)
LEASE = 30.0


@pytest.fixture
def tenants(database_url):
    """Two tenants that have nothing; no other tenant's trainings wait."""
    made = [new_id("ten"), new_id("ten")]
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM brain.intent_trainings")
        for tenant in made:
            connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, 'x')", (tenant,))
    return made


@pytest.fixture
def caller(tenants):
    return Caller(tenants[0], "key_1", "admin")


@pytest.fixture
def intents(pool):
    return PostgresIntents(pool)


@pytest.fixture
def trainings(pool):
    return PostgresTrainings(pool)


@pytest.fixture
def heads(pool):
    return PostgresHeads(pool)


def new(name="refund", **changes):
    fields = {
        "description": "wants money back",
        "examples": ["my money", "refund me"],
        "slots": [{"name": "order", "kind": "order_number"}],
    }
    return NewIntent(**{"id": new_id("int"), "name": name, "needs_products": True, **fields, **changes})


def head(effort="first", embedder="e@1", artefact=b"head"):
    return NewHead(embedder, artefact, b"examples", effort, {"greeting": {"slots": []}}, {"accuracy": 0.9})


def lapse(url, training):
    """Its trainer has not renewed for too long."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE brain.intent_trainings SET leased_until = now() - interval '1 s' WHERE id = %s", (training,)
        )


async def claimed(trainings, trainer=None):
    found = await trainings.claim(trainer or uuid.uuid4(), LEASE)
    return None if found is None else found[0]


# Intents


async def test_an_intent_is_kept_as_it_was_said(intents, caller):
    asked = new()
    made, again = await intents.create(caller, asked)
    assert not again and made == await intents.one(caller.tenant, asked.id)
    assert (made.name, made.examples, made.needs_products) == ("refund", ["my money", "refund me"], True)
    assert made.slots[0].name == "order"
    changed = await intents.put(caller.tenant, made.id, new("returns", examples=["x"]))
    assert (changed.id, changed.name, changed.examples) == (made.id, "returns", ["x"])
    assert changed.updated_at > changed.created_at
    await intents.delete(caller.tenant, made.id)
    with pytest.raises(NotFound):
        await intents.one(caller.tenant, made.id)


async def test_a_name_is_one_intents(intents, caller, tenants):
    first, _ = await intents.create(caller, new("a"))
    other, _ = await intents.create(caller, new("b"))
    with pytest.raises(NameTaken, match="'a'"):
        await intents.create(caller, new("a"))
    with pytest.raises(NameTaken, match="'a'"):
        await intents.put(caller.tenant, other.id, new("a"))
    assert (await intents.put(caller.tenant, first.id, new("a", description=""))).description == ""
    assert (await intents.create(Caller(tenants[1], "key_1"), new("a")))[0].name == "a"


async def test_the_same_key_makes_one_intent(intents, caller):
    keyed = [new("a", key="k", body_hash=b"1") for _ in range(4)]
    found = await asyncio.gather(*(intents.create(caller, one) for one in keyed))
    assert len({made.id for made, _ in found}) == 1
    assert sorted(again for _, again in found) == [False, True, True, True]
    with pytest.raises(IdempotencyMismatch):
        await intents.create(caller, new("b", key="k", body_hash=b"2"))


async def test_intents_come_in_pages(intents, caller):
    made = [(await intents.create(caller, new(name)))[0].id for name in ("a", "b", "c")]
    page = await intents.page(caller.tenant, PageQuery(limit=2))
    assert [one.id for one in page.data] == made[:0:-1] and page.has_more
    page = await intents.page(caller.tenant, PageQuery(after=made[1], limit=2))
    assert [one.id for one in page.data] == made[:1] and not page.has_more
    assert [one.id for one in await intents.all(caller.tenant)] == made


async def test_a_tenant_has_so_many_and_no_more(intents, caller, monkeypatch):
    monkeypatch.setattr(module, "MOST_EXAMPLES", 3)
    made, _ = await intents.create(caller, new("a"))
    with pytest.raises(TooManyIntents, match="3 examples"):
        await intents.create(caller, new("b"))
    await intents.put(caller.tenant, made.id, new("a", examples=["1", "2", "3"]))
    monkeypatch.setattr(module, "MOST", 1)
    with pytest.raises(TooManyIntents, match="1 intents"):
        await intents.create(caller, new("b", examples=[]))


async def test_another_tenants_intents_trainings_and_heads_are_not_there(intents, trainings, heads, caller, tenants):
    other = tenants[1]
    made, _ = await intents.create(caller, new())
    job, _ = await trainings.submit(caller, NewTraining(new_id("train"), REQUEST))
    claim = await claimed(trainings)
    await heads.store(claim, head())
    for call in (
        intents.one(other, made.id),
        intents.put(other, made.id, new("z")),
        intents.delete(other, made.id),
        trainings.one(other, job.id),
    ):
        with pytest.raises(NotFound):
            await call
    assert await intents.all(other) == [] and (await intents.page(other, PageQuery())).data == []
    assert await heads.versions(other) == [] and await heads.usable(other, "e@1") == (None, None)
    assert not await heads.activate(other, 1)
    stolen = type(claim)(other, claim.id, claim.trainer, claim.attempt)
    with pytest.raises(Fenced):
        await heads.store(stolen, head("best"))
    assert await intents.one(caller.tenant, made.id) == made


# Trainings


async def test_a_training_goes_from_its_request_to_its_end(trainings, heads, caller):
    made, again = await trainings.submit(caller, NewTraining(new_id("train"), REQUEST))
    assert (made.status, made.progress, made.version, again) == ("queued", 0, None, False)
    claim, request = await trainings.claim(uuid.uuid4(), LEASE)
    assert request == REQUEST and request.descriptions == {"greeting": "says hello"}
    await trainings.renew(claim, LEASE, 0.4, "embedding")
    found = await trainings.one(caller.tenant, made.id)
    assert (found.status, found.progress, found.phase) == ("running", 0.4, "embedding")
    assert await heads.store(claim, head()) == 1
    await trainings.complete(claim, {"accuracy": 0.9})
    found = await trainings.one(caller.tenant, made.id)
    assert (found.status, found.progress, found.version, found.metrics) == ("completed", 1, 1, {"accuracy": 0.9})
    assert found.ended and found.created_at <= found.started_at <= found.completed_at
    assert await trainings.claim(uuid.uuid4(), LEASE) is None


async def test_a_failed_training_says_why_and_leaves_the_heads(trainings, heads, caller):
    made, _ = await trainings.submit(caller, NewTraining(new_id("train"), REQUEST))
    claim = await claimed(trainings)
    await trainings.fail(claim, {"message": "no"})
    found = await trainings.one(caller.tenant, made.id)
    assert (found.status, found.error) == ("failed", {"message": "no"})
    with pytest.raises(Fenced):
        await heads.store(claim, head())


async def test_trainers_that_ask_at_once_never_get_the_same_job(trainings, tenants):
    for tenant in tenants:
        for _ in range(2):
            await trainings.submit(Caller(tenant, "key_1"), NewTraining(new_id("train"), REQUEST))
    first = [one for one in await asyncio.gather(*(claimed(trainings) for _ in range(8))) if one]
    while more := [one for one in await asyncio.gather(*(claimed(trainings) for _ in range(3))) if one]:
        first += more
    assert sorted(claim.tenant for claim in first) == sorted(tenants), "one at a time of each tenant"
    for claim in first:
        await trainings.complete(claim, {})
    second = [await claimed(trainings), await claimed(trainings)]
    assert len({claim.id for claim in first + second}) == 4


async def test_tenants_get_their_turns_however_many_trainings_one_of_them_queues(trainings, tenants):
    busy, other = (Caller(tenant, "key_1") for tenant in tenants)
    order = []
    for caller in [busy] * MOST_QUEUED + [other] * 2:
        await trainings.submit(caller, NewTraining(new_id("train"), REQUEST))
    while claim := await claimed(trainings):
        order.append(claim.tenant)
        await trainings.complete(claim, {})
        if claim.tenant == busy.tenant and len(order) < 4:
            await trainings.submit(busy, NewTraining(new_id("train"), REQUEST))
    assert order[:4] == [*tenants, *tenants] and set(order[4:]) == {busy.tenant}


async def test_a_tenants_own_trainings_keep_their_order(trainings, caller):
    made = [(await trainings.submit(caller, NewTraining(new_id("train"), REQUEST)))[0].id for _ in range(3)]
    order = []
    while claim := await claimed(trainings):
        order.append(claim.id)
        await trainings.complete(claim, {})
    assert order == made


async def test_a_dead_trainers_job_is_taken_up_and_its_own_word_counts_no_more(trainings, heads, caller, database_url):
    made, _ = await trainings.submit(caller, NewTraining(new_id("train"), REQUEST))
    dead = await claimed(trainings)
    assert await heads.store(dead, head()) == 1
    assert await claimed(trainings) is None, "its lease holds"
    lapse(database_url, made.id)
    alive = await claimed(trainings)
    assert (alive.id, alive.attempt) == (dead.id, 2)
    for late in (
        trainings.renew(dead, LEASE, 0.9, "late"),
        trainings.complete(dead, {}),
        trainings.fail(dead, {}),
        heads.store(dead, head("best")),
    ):
        with pytest.raises(Fenced):
            await late
    assert (await heads.of_training(alive, "first")).version == 1
    assert await heads.store(alive, head()) == 1, "a job makes one head of each effort"
    assert await heads.store(alive, head("best")) == 2
    await trainings.complete(alive, {})
    assert [one.version for one in await heads.versions(caller.tenant)] == [2, 1]


async def test_a_tuned_training_keeps_its_effort_and_a_head_of_many_megabytes(trainings, heads, caller):
    await trainings.submit(caller, NewTraining(new_id("train"), replace(REQUEST, effort="tuned")))
    claim, request = await trainings.claim(uuid.uuid4(), LEASE)
    assert request.effort == "tuned"
    large = os.urandom(20_000_000)
    await heads.store(claim, head("best", artefact=large))
    assert (await heads.of_training(claim, "best")).artefact == large


async def test_a_trainer_that_stops_gives_its_job_back(trainings, caller):
    await trainings.submit(caller, NewTraining(new_id("train"), REQUEST))
    claim = await claimed(trainings)
    await trainings.give_back(claim)
    assert (await claimed(trainings)).attempt == 1


async def test_a_job_over_which_trainers_die_fails_at_last(trainings, caller, database_url):
    made, _ = await trainings.submit(caller, NewTraining(new_id("train"), REQUEST))
    for _ in range(ATTEMPTS):
        assert await claimed(trainings)
        lapse(database_url, made.id)
    assert await claimed(trainings) is None
    found = await trainings.one(caller.tenant, made.id)
    assert found.status == "failed" and found.error["code"] == "training_interrupted"


async def test_only_so_many_of_a_tenants_trainings_wait(trainings, caller, tenants):
    asked = [NewTraining(new_id("train"), REQUEST) for _ in range(MOST_QUEUED + 3)]
    found = await asyncio.gather(*(trainings.submit(caller, one) for one in asked), return_exceptions=True)
    assert sum(isinstance(one, Overloaded) for one in found) == 3
    assert (await trainings.submit(Caller(tenants[1], "key_1"), asked[0]))[0].status == "queued"


async def test_the_same_key_makes_one_training(trainings, caller):
    keyed = [NewTraining(new_id("train"), REQUEST, "k", b"1") for _ in range(3)]
    found = await asyncio.gather(*(trainings.submit(caller, one) for one in keyed))
    assert len({made.id for made, _ in found}) == 1 and sum(again for _, again in found) == 2
    await trainings.complete(await claimed(trainings), {})
    assert (await trainings.submit(caller, keyed[0]))[0].status == "completed", "as it is now"


# Heads


async def train(trainings, heads, caller, *made):
    await trainings.submit(caller, NewTraining(new_id("train"), REQUEST))
    claim = await claimed(trainings)
    versions = [await heads.store(claim, one) for one in made]
    await trainings.complete(claim, {})
    return versions


async def active(heads, tenant):
    return (await heads.active_versions([tenant])).get(tenant, (0,))[0]


async def test_the_newest_head_is_active_until_somebody_rolls_back(trainings, heads, caller, tenants):
    assert await train(trainings, heads, caller, head(), head("best")) == [1, 2]
    before = await heads.active_versions([*tenants, "ten_nobody"])
    assert list(before) == [caller.tenant] and before[caller.tenant][0] == 2
    assert await heads.activate(caller.tenant, 1)
    assert await active(heads, caller.tenant) == 1
    assert await heads.activate(caller.tenant, 2)
    assert (await heads.active_versions(tenants))[caller.tenant] > before[caller.tenant], "told apart from before"
    assert not await heads.activate(caller.tenant, 9)
    assert await active(heads, caller.tenant) == 2
    assert await heads.activate(caller.tenant, 0)
    assert await active(heads, caller.tenant) == 0 and await heads.usable(caller.tenant, "e@1") == (None, None)


async def test_a_best_head_does_not_undo_a_rollback(trainings, heads, caller):
    await train(trainings, heads, caller, head())
    await trainings.submit(caller, NewTraining(new_id("train"), REQUEST))
    claim = await claimed(trainings)
    assert await heads.store(claim, head()) == 2
    await heads.activate(caller.tenant, 1)
    assert await heads.store(claim, head("best")) == 3
    assert await active(heads, caller.tenant) == 1


async def test_a_head_of_another_embedder_is_not_used(trainings, heads, caller):
    await train(trainings, heads, caller, head(artefact=b"old"))
    await train(trainings, heads, caller, head(embedder="e@2", artefact=b"new"))
    used, current = await heads.usable(caller.tenant, "e@2")
    assert (used.version, used.artefact, current.version) == (2, b"new", 2)
    used, current = await heads.usable(caller.tenant, "e@1")
    assert (used.version, used.artefact, current.version) == (1, b"old", 2)
    used, current = await heads.usable(caller.tenant, "e@3")
    assert used is None and current.version == 2


async def test_old_versions_go_but_not_the_active_one(trainings, heads, caller):
    for version in range(1, KEPT + 1):
        assert await train(trainings, heads, caller, head()) == [version]
    await trainings.submit(caller, NewTraining(new_id("train"), REQUEST))
    claim = await claimed(trainings)
    assert await heads.store(claim, head()) == KEPT + 1
    assert [one.version for one in await heads.versions(caller.tenant)] == [*range(KEPT + 1, 1, -1)]
    await heads.activate(caller.tenant, 2)
    assert await heads.store(claim, head("best")) == KEPT + 2
    assert [one.version for one in await heads.versions(caller.tenant)] == [*range(KEPT + 2, 1, -1)]
