"""The trainer and what classifiers make of its heads, on the real database."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from deployments.held_out import MANY, better, held_out
from deployments.intent_classifier import IntentClassifier
from deployments.intent_trainer import IntentTrainer
from deployments.tenant_heads import EMPTY, SILENCE, TenantHeads
from deployments.training_job import LEASE
from deployments.understanding.tail import Tail
from domain.errors import Unavailable
from domain.ids import new_id
from domain.intents import Claim, Training, TrainingRequest
from domain.tenant import Caller
from domain.understanding import Example
from storage.intent_trainings import NewTraining
from storage.postgres import Pool
from tests.servers.given import open_pool
from tests.unit.intents_world import HOURS, PARCEL, REFUND, SHARED, Understanders, Words, understanders
from tests.unit.understanding.toy import tail

EXAMPLES = tuple(Example(text, name) for name, texts in (("refund", REFUND), ("parcel", PARCEL)) for text in texts)
REQUEST = TrainingRequest(EXAMPLES)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """Of a database in which no training waits."""
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM brain.intent_trainings")
    pool = await open_pool(database_url, 8)
    yield pool
    await pool.close()


@pytest.fixture
async def world(pool: Pool, tmp_path: Path) -> AsyncIterator[Understanders]:
    async with understanders(pool, tmp_path) as found:
        yield found


@pytest.fixture
def own(database_url: str) -> str:
    return tenant_of(database_url)


@pytest.fixture
def other(database_url: str) -> str:
    return tenant_of(database_url)


def tenant_of(database_url: str) -> str:
    tenant = new_id("ten")
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, 'x')", (tenant,))
    return tenant


async def submit(world: Understanders, tenant: str, request: TrainingRequest = REQUEST) -> str:
    made, _ = await world.trainings.submit(Caller(tenant, "key_1", "admin"), NewTraining(new_id("train"), request))
    world.trainer.wake()
    return made.id


async def ended(world: Understanders, tenant: str, training: str) -> Training:
    async with asyncio.timeout(90):  # of which torch's import may take most, on a crowded machine
        while not (found := await world.trainings.one(tenant, training)).ended:
            await asyncio.sleep(0.02)
    return found


def lapse(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE brain.intent_trainings SET leased_until = now() - interval '1 s'")


async def claimed(world: Understanders, tenant: str, training: str) -> None:
    async with asyncio.timeout(10):
        while (await world.trainings.one(tenant, training)).status != "running":
            await asyncio.sleep(0.02)


async def in_phase(world: Understanders, tenant: str, training: str, phase: str) -> None:
    async with asyncio.timeout(60):
        while not (await world.trainings.one(tenant, training)).phase.startswith(phase):
            await asyncio.sleep(0.02)


async def test_the_first_head_is_in_use_before_the_training_has_ended(world: Understanders, own: str) -> None:
    job = await submit(world, own)
    done = await ended(world, own, job)
    versions = {one.effort: one for one in await world.heads.versions(own)}
    assert done.status == "completed" and done.version == max(one.version for one in versions.values())
    assert set(done.metrics["held_out"]) == {"first", "best", "kept"}
    assert versions["first"].metrics["held_out"] == done.metrics["held_out"]["first"]
    assert ("best" in versions) is (done.metrics["held_out"]["kept"] == "best")
    await world.version_everywhere(own, done.version or 0)
    only = await ended(world, own, await submit(world, own, replace(REQUEST, effort="first")))
    assert "best" not in only.metrics["held_out"]


async def test_a_tuned_head_takes_the_place_of_the_first_and_gets_a_messages_states_of_its_one_pass(
    pool: Pool, own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.training_job.better", lambda first, best: True)
    async with understanders(pool, tmp_path, tail) as world:
        done = await ended(world, own, await submit(world, own, replace(REQUEST, effort="tuned")))
        assert done.status == "completed", done.error
        assert (
            set(done.metrics["held_out"]) == {"first", "tuned", "kept"} and done.metrics["held_out"]["kept"] == "tuned"
        )
        texts = [text for text in world.embedder.stated if text in {one.text for one in EXAMPLES}]
        assert sorted(texts) == sorted(one.text for one in EXAMPLES), "each once"
        best, first = await world.heads.versions(own)
        assert (best.effort, best.active, best.metrics["tuned"]) == ("best", True, True)
        await world.version_everywhere(own, best.version)
        world.embedder.asked.clear()
        world.embedder.stated.clear()
        found = await world.replicas[0].classify("where is my parcel", own)
        assert found.intent.name == "parcel" and list(found.embedding) == await Words().embed("where is my parcel")
        many = await world.replicas[0].classify_many(["refund my order", "track my parcel"], own)
        assert [one.intent.name for one in many] == ["refund", "parcel"]
        measured = await world.replicas[0].evaluate(EXAMPLES, own)
        assert measured["version"] == best.version and measured["accuracy"] > 0.9
        assert world.embedder.stated[0] == "where is my parcel" and not world.embedder.asked
        await world.heads.activate(own, first.version)
        await world.version_everywhere(own, first.version)
        world.embedder.stated.clear()
        assert (await world.replicas[0].classify("where is my parcel", own)).version == first.version
        assert not world.embedder.stated, "whose head needs no states is handed none"


async def test_first_heads_do_not_wait_for_what_takes_minutes(pool: Pool, own: str, other: str, tmp_path: Path) -> None:
    """Neither the one's own, nor those of other tenants, however many of them want a tuned head too."""
    async with understanders(pool, tmp_path, tail) as world:
        world.embedder.hold_states = asyncio.Event()  # the tuned head cannot be made before it is set
        slow = await submit(world, own, replace(REQUEST, effort="tuned"))
        quick = await submit(world, other, replace(REQUEST, effort="first"))
        assert (await ended(world, other, quick)).status == "completed"
        [first] = await world.heads.versions(own)
        assert (first.effort, first.active) == ("first", True)
        waiting = await submit(world, other, replace(REQUEST, effort="tuned"))
        async with asyncio.timeout(60):
            while len(await world.heads.versions(other)) < 2:
                await asyncio.sleep(0.02)
        assert (await world.trainings.one(own, slow)).status == "running"
        assert (await world.trainings.one(other, waiting)).status == "running"
        world.embedder.hold_states.set()
        for tenant, job in ((own, slow), (other, waiting)):
            assert (await ended(world, tenant, job)).status == "completed"


async def test_layers_are_loaded_when_a_jobs_turn_comes(pool: Pool, own: str, other: str, tmp_path: Path) -> None:
    """Many jobs may wait for theirs, and none holds megabytes meanwhile."""
    loaded = list[Tail]()

    def load() -> Tail:
        loaded.append(tail())
        return loaded[-1]

    async with understanders(pool, tmp_path, load) as world:
        world.embedder.hold_states = asyncio.Event()
        slow = await submit(world, own, replace(REQUEST, effort="tuned"))
        async with asyncio.timeout(60):
            while not world.embedder.stated:
                await asyncio.sleep(0.02)
        assert len(loaded) == 1
        waiting = await submit(world, other, replace(REQUEST, effort="tuned"))
        await in_phase(world, other, waiting, "the first head is in use, and the rest waits for its turn")
        assert len(loaded) == 1
        world.embedder.hold_states.set()
        for tenant, job in ((own, slow), (other, waiting)):
            assert (await ended(world, tenant, job)).status == "completed"
        assert len(loaded) == 2


async def test_another_phase_is_told_at_once(
    pool: Pool, own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before the next time that the lease is renewed."""
    monkeypatch.setattr("deployments.training_job.RENEW", 3600.0)
    monkeypatch.setattr("deployments.training_job.LEASE", 3600.0)
    async with understanders(pool, tmp_path, tail) as world:
        world.embedder.hold_states = asyncio.Event()
        job = await submit(world, own, replace(REQUEST, effort="tuned"))
        await in_phase(world, own, job, "the tuned head")  # five examples an intent are too few to measure
        world.embedder.hold_states.set()
        assert (await ended(world, own, job)).status == "completed"


async def test_a_lease_that_is_not_renewed_is_told_and_tried_again(
    world: Understanders, own: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    renewed, tries = world.trainings.renew, list[bool]()

    async def renew(claim: Claim, lease: float, progress: float, phase: str) -> None:
        tries.append(True)
        if len(tries) == 1:
            raise RuntimeError("out of order")
        await renewed(claim, lease, progress, phase)

    monkeypatch.setattr(world.trainings, "renew", renew)
    done = await ended(world, own, await submit(world, own))
    assert done.status == "completed" and len(tries) > 1
    assert "a training's lease was not renewed" in caplog.text and "out of order" in caplog.text


async def test_a_tenants_next_training_does_not_wait_for_its_own_tuned_head(
    pool: Pool, own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.training_job.RENEW", 0.05)
    async with understanders(pool, tmp_path, tail) as world:
        world.embedder.hold_states = asyncio.Event()
        slow = await submit(world, own, replace(REQUEST, effort="tuned"))
        async with asyncio.timeout(60):
            while not world.embedder.stated:
                await asyncio.sleep(0.02)
        quick = await ended(world, own, await submit(world, own, replace(REQUEST, effort="first")))
        left = await world.trainings.one(own, slow)
        assert (left.status, left.version) == ("completed", 1)
        assert left.metrics["held_out"] == {"kept": "first", "left_out": "another training waited"}
        assert (quick.status, quick.version) == ("completed", 2)
        world.embedder.hold_states.set()
        await world.version_everywhere(own, 2)


async def test_a_trainer_that_stops_gives_back_all_that_it_holds(
    pool: Pool, own: str, other: str, tmp_path: Path
) -> None:
    async with understanders(pool, tmp_path, tail) as world:
        world.embedder.hold_states = asyncio.Event()
        jobs = {tenant: await submit(world, tenant, replace(REQUEST, effort="tuned")) for tenant in (own, other)}
        async with asyncio.timeout(60):
            for tenant in jobs:
                while not await world.heads.versions(tenant):
                    await asyncio.sleep(0.02)
        await world.trainer.close()
        world.embedder.hold_states.set()
        found = [await world.trainings.claim(uuid.uuid4(), LEASE) for _ in jobs]
        assert {one[0].id for one in found if one} == set(jobs.values()), "at once, before any lease has run out"


async def test_an_embedder_without_layers_cannot_be_tuned(world: Understanders, own: str) -> None:
    done = await ended(world, own, await submit(world, own, replace(REQUEST, effort="tuned")))
    assert done.status == "failed" and done.error is not None
    assert (done.error["code"], done.error["param"]) == ("not_tunable", "effort")
    assert "words" in done.error["message"] and not await world.heads.versions(own)


async def test_each_text_is_embedded_once_in_a_training(world: Understanders, own: str) -> None:
    await world.replicas[0].prepare()
    world.embedder.asked.clear()
    await ended(world, own, await submit(world, own))
    texts = [text for text in world.embedder.asked if text in {one.text for one in EXAMPLES}]
    assert sorted(texts) == sorted(one.text for one in EXAMPLES)


async def test_a_trainer_that_stops_hands_its_job_to_another(world: Understanders, own: str, pool: Pool) -> None:
    world.embedder.hold = asyncio.Event()
    job = await submit(world, own)
    await claimed(world, own, job)
    await world.trainer.close()
    world.embedder.hold.set()
    world.embedder.hold = None
    other = IntentTrainer(world.trainings, world.heads, world.embedder, poll=0.05, nice=0)
    other.start()
    assert (await ended(world, own, job)).status == "completed"
    await other.close()


async def test_a_trainer_that_lost_its_job_writes_nothing_more(
    world: Understanders, own: str, database_url: str
) -> None:
    world.embedder.hold = asyncio.Event()
    job = await submit(world, own)
    await claimed(world, own, job)
    lapse(database_url)
    found = await world.trainings.claim(uuid.uuid4(), LEASE)
    assert found is not None and found[0].id == job
    world.embedder.hold.set()
    async with asyncio.timeout(20):
        while world.trainer.busy:
            await asyncio.sleep(0.02)
    assert await world.heads.versions(own) == []
    await world.trainings.complete(found[0], {})
    assert (await world.trainings.one(own, job)).version is None


async def test_what_cannot_be_learned_fails_the_job_and_the_next_goes_on(world: Understanders, own: str) -> None:
    bad = await ended(world, own, await submit(world, own, TrainingRequest(EXAMPLES[:5])))
    assert bad.status == "failed" and bad.error is not None
    assert bad.error["code"] == "invalid_examples" and "'refund'" in bad.error["message"]
    assert (await ended(world, own, await submit(world, own))).status == "completed"


async def test_an_embedder_that_is_away_for_a_while_is_waited_for(
    world: Understanders, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.replicas[0].prepare()
    monkeypatch.setattr("deployments.encoding.PAUSE", 0.02)
    world.embedder.away = True
    job = await submit(world, own)
    await claimed(world, own, job)
    async with asyncio.timeout(10):
        while world.embedder.asked.count(EXAMPLES[0].text) < 3:
            await asyncio.sleep(0.02)
    world.embedder.away = False
    assert (await ended(world, own, job)).status == "completed"


# Held-out measures


def test_held_out_examples_are_never_learned_from_and_the_same_for_a_seed() -> None:
    def encode(texts):  # type: ignore[no-untyped-def]
        return asyncio.run(_vectors(texts))

    many = tuple(Example(f"{one.text} {n}", one.intent) for n in range(6) for one in EXAMPLES)
    told: list[float] = []
    first = held_out(TrainingRequest(many), "first", encode, lambda share, stage: told.append(share))
    assert first is not None and first["accuracy"] > 0.9 and told == sorted(told) and told[-1] == 1
    assert held_out(TrainingRequest(many), "first", encode) == first
    assert held_out(TrainingRequest((EXAMPLES[0], EXAMPLES[-1])), "first", encode) is None
    own = TrainingRequest(many, (Example("parcel", "refund"),))
    found = held_out(own, "first", encode)
    assert found is not None and found["accuracy"] == 0, "by the examples that the caller gave for it"
    assert len(many) < MANY


async def _vectors(texts: list[str]):  # type: ignore[no-untyped-def]
    import numpy as np

    return np.asarray(await Words().embed_many(texts), np.float32)


@pytest.mark.parametrize(
    ("first", "best", "worth"),
    [
        ((0.9, 0.1), (0.91, 0.5), True),
        ((0.9, 0.1), (0.9, 0.05), True),
        ((0.9, 0.1), (0.9, 0.1), False),
        ((0.9, 0.1), (0.89, 0.0), False),
        (None, (0.1, 0.1), True),
        ((0.9, 0.1), None, False),
    ],
)
def test_what_took_longer_must_be_worth_it(first, best, worth):  # type: ignore[no-untyped-def]
    def measured(found):  # type: ignore[no-untyped-def]
        return found and {"accuracy": found[0], "expected_calibration_error": found[1]}

    assert better(measured(first), measured(best)) is worth


# Classifiers


async def test_a_head_of_another_embedder_is_told_and_not_used(
    world: Understanders, own: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = await ended(world, own, await submit(world, own, replace(REQUEST, effort="first")))
    other = IntentClassifier(Words("2"), heads=world.heads, examples=tmp_path / "shared.yaml")
    with caplog.at_level(logging.WARNING, "brain.intents"):
        assert (await other.classify("hello there", own)).version == 0
    assert "trained with the embedder words@1, and words@2 runs here: the shared set is used" in caplog.text
    head = await other.head(own)
    assert (head.version, head.active, head.embedder) == (0, done.version, "words@2")
    assert head.problem is not None and "train again" in head.problem
    assert (await world.replicas[0].head(own)).problem is None
    await other.close()


async def test_a_broken_head_costs_no_message_its_answer(world: Understanders, own: str, database_url: str) -> None:
    done = await ended(world, own, await submit(world, own, replace(REQUEST, effort="first")))
    await world.version_everywhere(own, done.version or 0)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE brain.intent_heads SET artefact = 'broken', activated_at = now() WHERE tenant_id = %s", (own,)
        )
    async with asyncio.timeout(10):
        while not (await world.replicas[0].head(own)).problem:
            await asyncio.sleep(0.02)
    assert (await world.replicas[0].classify("money back", own)).version == done.version, "the last one that was read"


async def test_while_the_database_is_away_the_last_head_answers(world: Understanders, own: str) -> None:
    done = await ended(world, own, await submit(world, own, replace(REQUEST, effort="first")))

    class Away:
        away = False

        async def usable(self, tenant, embedder):  # type: ignore[no-untyped-def]
            if self.away:
                raise Unavailable
            return await world.heads.usable(tenant, embedder)

        async def active_versions(self, tenants):  # type: ignore[no-untyped-def]
            if self.away:
                raise Unavailable
            return await world.heads.active_versions(tenants)

    store = Away()
    heads = TenantHeads(store, "words@1", poll=0.01)
    found = (await heads.of(own)).meaning
    assert found is not None and found.version == done.version
    store.away = True
    with pytest.raises(Unavailable):
        await heads.refresh()
    assert (await heads.of(own)).meaning is found
    assert (await heads.of("ten_new")).meaning is None, "the shared set"
    store.away = False
    await world.heads.activate(own, 0)
    async with asyncio.timeout(10):
        while (await heads.of(own)).meaning is not None:
            await asyncio.sleep(0.01)
    await heads.close()


async def test_what_is_held_is_bounded_and_the_longest_unused_goes_first(world: Understanders, own: str) -> None:
    await ended(world, own, await submit(world, own, replace(REQUEST, effort="first")))
    heads = TenantHeads(world.heads, "words@1", most_bytes=1 << 20, poll=60)
    await heads.of(own)
    one = heads.bytes
    assert one > EMPTY
    small = TenantHeads(world.heads, "words@1", most_bytes=one + EMPTY, poll=60)
    held = await small.of(own)
    await small.of("ten_1")
    assert await small.of(own) is held
    await small.of("ten_2")
    assert small.bytes <= one + EMPTY and await small.of(own) is held
    await small.of("ten_3")
    await small.of("ten_4")
    assert await small.of(own) is not held, "read again"
    await heads.close()
    await small.close()


async def test_only_tenants_that_were_heard_of_lately_are_looked_at(world: Understanders, own: str) -> None:
    first = await ended(world, own, await submit(world, own, replace(REQUEST, effort="first")))
    now, looked = 100.0, list[list[str]]()

    class Watched:
        async def usable(self, tenant, embedder):  # type: ignore[no-untyped-def]
            return await world.heads.usable(tenant, embedder)

        async def active_versions(self, tenants):  # type: ignore[no-untyped-def]
            looked.append(tenants)
            return await world.heads.active_versions(tenants)

    heads = TenantHeads(Watched(), "words@1", poll=60, monotonic=lambda: now)
    await heads.of(own)
    await heads.refresh()
    now += SILENCE + 1
    await heads.of("ten_other")
    await heads.refresh()
    assert looked == [[own], ["ten_other"]]
    assert await world.heads.activate(own, 0)
    assert (await heads.of(own)).meaning is None, "read again at the first message after a silence"
    assert await world.heads.activate(own, first.version or 0)
    await heads.refresh()
    assert (await heads.of(own)).meaning is not None and looked[-1] == ["ten_other", own]
    await heads.close()


async def test_a_long_answer_is_by_one_version_whatever_becomes_active_meanwhile(
    world: Understanders, own: str
) -> None:
    done = await ended(world, own, await submit(world, own, replace(REQUEST, effort="first")))
    await world.version_everywhere(own, done.version or 0)
    world.embedder.hold = asyncio.Event()
    many = asyncio.create_task(world.replicas[0].classify_many([*REFUND, *HOURS], own))
    async with asyncio.timeout(10):
        while REFUND[0] not in world.embedder.asked[-10:]:
            await asyncio.sleep(0.01)
    await world.heads.activate(own, 0)
    world.embedder.hold.set()
    assert {one.version for one in await many} == {done.version}
    world.embedder.hold = None
    await world.version_everywhere(own, 0)
    assert "greeting" in SHARED and (await world.replicas[1].classify("hello there", own)).intent.name == "greeting"
