"""The indexer on a real outbox: vectors equal messages, wherever its process dies and whoever works beside it."""

import asyncio
import random
import uuid

import pytest

from deployments.indexer import Indexer
from domain.errors import Unavailable
from domain.ids import new_id
from domain.ledger import Version
from serve_app.outbox_watch import check_writing
from storage.spaces import PostgresSpaces
from tests.storage.memory_world import Crash, MemoryWorld, Steps


async def test_messages_of_both_roles_are_indexed_with_what_is_known_of_them(world):
    tenant = await world.tenant()
    key = await world.conversation(tenant, "alice")
    asked, answered = await world.say(key, "where is my parcel", "it is on its way", "track_order")
    indexer = await world.settle()
    await world.check()
    kept = (await world.active()).tenants[tenant]
    assert (kept[asked].user, kept[asked].intent, kept[asked].role) == ("alice", "track_order", "user")
    assert kept[answered].role == "assistant"
    assert indexer.figures.written == 2 and indexer.figures.embedded == 2


async def test_a_message_is_embedded_once_though_its_intent_comes_later(world):
    key = await world.conversation(await world.tenant())
    await world.settle()
    await world.say(key, "first", None)
    await world.settle()
    await world.check()
    [(turn,)] = await world.run("SELECT id FROM brain.turns")
    await world.run('UPDATE brain.turns SET status = \'failed\', intent = \'{"name": "a", "confidence": 1}\'')
    await world.run(
        "INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES (%s, 'turn.failed',"
        " jsonb_build_object('turn_id', %s::text, 'conversation_id', %s::text))",
        key.tenant,
        turn,
        key.conversation,
    )
    await world.settle()
    await world.check()
    assert world.embedder.texts == ["first"]


async def test_what_is_deleted_leaves_the_vectors(world):
    tenant, other = await world.tenant(), await world.tenant()
    first, second, third = [await world.conversation(one) for one in (tenant, tenant, other)]
    asked, _ = await world.say(first, "one")
    await world.say(second, "two")
    await world.say(third, "three")
    await world.settle()
    await world.reader.delete_message(tenant, asked)
    await world.delete_conversation(second)
    await world.settle()
    await world.check()
    assert len((await world.active()).tenants[tenant]) == 1
    await world.run("DELETE FROM brain.tenants WHERE id = %s", other)
    await world.settle()
    await world.check()


async def test_a_conversation_that_changes_hands_is_found_by_its_new_user(world):
    key = await world.conversation(await world.tenant(), "alice")
    await world.say(key, "mine")
    await world.settle()
    owner = (await world.store.activate(key, str(uuid.uuid4()))).ownership
    await world.store.change(key, owner, {"user_id": "bob"}, False)
    await world.settle()
    await world.check()
    assert len(world.embedder.texts) == 2, "no text was embedded again"


async def test_answers_kept_beside_the_reply_are_indexed_too(world):
    key = await world.conversation(await world.tenant())
    beside = Version(new_id("msg"), "another answer", "m", None, None)
    await world.say(key, "which one", "this answer", versions=(beside,))
    await world.settle()
    await world.check()
    assert beside.message_id in (await world.active()).tenants[key.tenant]


class DiesOnceWritten(Steps):
    """Something happens just before the vectors are written, and the process dies just after."""

    def __init__(self, before):
        super().__init__()
        self._before = before

    async def take(self, name, call):
        if name != "MemoryVectors.upsert":
            return await call()
        await self._before()
        await call()
        raise Crash(name)


async def history(world: MemoryWorld) -> None:
    """A little of everything, with waiting events of each kind."""
    tenant, other = await world.tenant(), await world.tenant()
    keys = [await world.conversation(one, "u") for one in (tenant, tenant, other)]
    said = [await world.say(key, f"question {n}", f"answer {n}", "i") for n, key in enumerate(keys)]
    beside = Version(new_id("msg"), "another answer", "m", None, None)
    await world.say(keys[0], "more", versions=(beside,))
    await world.settle()
    await world.reader.delete_message(tenant, said[0][0])
    await world.delete_conversation(keys[1])
    owner = (await world.store.activate(keys[2], str(uuid.uuid4()))).ownership
    await world.store.change(keys[2], owner, {"user_id": "v"}, False)
    await world.say(keys[2], "new", "newer")


async def crash(world: MemoryWorld, at: int | None, on: str | None = None) -> str | None:
    """A process that dies at its `at`-th step, or at the first one called `on`: its name, or None where it came to its
    end before."""
    steps = Steps()
    steps.crash_at, steps.crash_on = at, on
    indexer = world.indexer(steps)
    try:
        for _ in range(20):
            if not await indexer.step() and not await indexer.fill_step():
                return None
        raise AssertionError("it does not come to an end")
    except Crash as died:
        return str(died)


@pytest.mark.timeout(400)
async def test_it_may_die_at_any_step(world):
    vectors = {f"{when} MemoryVectors.{what}" for when in ("before", "after") for what in ("upsert", "delete")}
    outbox = {"before PostgresOutbox.confirm", "after PostgresOutbox.confirm", "after PostgresOutbox.claim"}
    steps, seen = 0, set()

    async def dies(at: int | None, on: str | None = None) -> str | None:
        await world.empty()
        world.spaces.clear()
        await history(world)
        if (died := await crash(world, at, on)) is not None:
            await world.settle()
            await world.check()
        return died

    while (died := await dies(steps + 1)) is not None:
        seen.add(died)
        steps += 1
    for name in sorted((vectors | outbox) - seen):  # the order is not always the same: a number may have missed it
        assert await dies(None, name) == name
    assert steps > 20


@pytest.mark.timeout(400)
async def test_it_may_die_at_any_step_of_filling_a_space(world):
    at = 0
    while True:
        at += 1
        await world.empty()
        world.spaces.clear()
        tenant = await world.tenant()
        for n in range(3):
            await world.say(await world.conversation(tenant), f"old {n}")
        await world.run("DELETE FROM brain.outbox")  # events of long ago are gone
        if await crash(world, at) is None:
            break
        await world.settle()
        await world.check()
    assert at > 15


@pytest.mark.parametrize("seed", range(12))
async def test_what_is_deleted_while_it_is_written_is_gone_at_the_end(world, seed):
    """A holder stops at any of its steps; another one does all there is; then the first goes on, or dies."""
    random_ = random.Random(seed)
    tenant = await world.tenant()
    key = await world.conversation(tenant)
    await world.settle()
    asked, answered = await world.say(key, "soon gone", versions=(Version(new_id("msg"), "beside", "m", None, None),))
    steps, reached, goes_on = Steps(), asyncio.Event(), asyncio.Event()
    stop_at, dies = random_.randrange(1, 40), random_.random() < 0.5

    async def held(name, call, take=steps.take):
        if steps.made >= stop_at and not reached.is_set():
            reached.set()
            await goes_on.wait()
            if dies:
                raise Crash(name)
        return await take(name, call)

    steps.take = held
    slow = asyncio.ensure_future(world.indexer(steps).step())
    await asyncio.wait({slow, asyncio.ensure_future(reached.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if random_.random() < 0.5:
        await world.reader.delete_message(tenant, random_.choice([asked, answered]))
    else:
        await world.delete_conversation(key)
    await world.leases_run_out()
    other = world.indexer()
    while await other.step():
        pass
    goes_on.set()
    await asyncio.gather(slow, return_exceptions=True) if not dies else await asyncio.wait({slow})
    if dies and slow.done():
        slow.exception()
    await world.settle()
    await world.check()


async def test_a_vector_that_no_event_names_goes_too(world):
    key = await world.conversation(await world.tenant())
    await world.settle()
    beside = Version(new_id("msg"), "beside", "m", None, None)
    await world.say(key, "which", versions=(beside,))

    async def meanwhile():
        await world.reader.delete_message(key.tenant, beside.message_id)
        assert await world.indexer().step() == 1, "the deletion alone: the turn's rows are held"

    with pytest.raises(Crash):
        await world.indexer(DiesOnceWritten(meanwhile)).step()
    assert beside.message_id in (await world.active()).tenants[key.tenant]
    await world.settle()
    await world.check()


async def test_several_at_once_do_it_once(world):
    tenants = [await world.tenant() for _ in range(3)]
    keys = [await world.conversation(tenant) for tenant in tenants for _ in range(2)]
    await world.settle()

    async def talk(key):
        for n in range(5):
            await world.say(key, f"{key.conversation} {n}")

    async def work(indexer: Indexer):
        while not talking.done() or await indexer.step():
            await asyncio.sleep(0)
            await indexer.step()

    talking = asyncio.ensure_future(asyncio.wait([asyncio.ensure_future(talk(key)) for key in keys]))
    indexers = [world.indexer() for _ in range(3)]
    await asyncio.gather(*map(work, indexers))
    await world.settle()
    await world.check()


async def test_a_row_that_cannot_be_indexed_stops_nobody_and_is_told(world, caplog):
    tenant, other = await world.tenant(), await world.tenant()
    key, free = await world.conversation(tenant), await world.conversation(other)
    await world.settle()
    world.embedder.refused.add("poison")
    bad, _ = await world.say(key, "poison", None)
    await world.say(free, "good")
    indexer = world.indexer()
    assert await indexer.step() == 3
    assert len((await world.active()).tenants[other]) == 2, "others are indexed at once"
    for _ in range(2):
        await world.leases_run_out()
        assert await indexer.step() == 1
    assert indexer.figures.set_aside == 1
    assert "cannot be indexed" in caplog.text
    [(error, failures)] = await world.run("SELECT error, failures FROM brain.outbox_set_aside")
    assert "out of memory" in error and failures == 3
    world.embedder.refused.clear()
    await world.settle()
    assert bad not in (await world.active()).tenants.get(tenant, {})


@pytest.mark.parametrize("away", ["embedder", "vectors"])
async def test_while_a_part_is_away_nothing_counts_as_failed(world, away):
    key = await world.conversation(await world.tenant())
    await world.settle()
    part = world.embedder if away == "embedder" else await world.active()
    await world.say(key, "later")
    part.away = True
    indexer = world.indexer()
    for _ in range(4):
        with pytest.raises(Unavailable):
            await indexer.step()
    assert await world.run("SELECT max(failures) FROM brain.outbox_claims") == [(0,)]
    part.away = False
    assert await indexer.step() == 2, "they were given back"
    await world.check()


async def test_the_first_start_indexes_what_was_said_before(world):
    tenant = await world.tenant()
    for n in range(3):
        await world.say(await world.conversation(tenant), f"old {n}")
    await world.run("DELETE FROM brain.outbox")
    indexer = world.indexer()
    assert await indexer.step() == 0
    known = await PostgresSpaces(world.pool).active()
    assert known is not None and not known.filled
    assert await world.run("SELECT count(*) FROM brain.outbox_consumers WHERE name = 'reindex'") == [(1,)]
    await world.settle(indexer)
    await world.check()
    known = await PostgresSpaces(world.pool).active()
    assert known is not None and known.filled
    assert await world.run("SELECT count(*) FROM brain.outbox_consumers WHERE name = 'reindex'") == [(0,)]


async def test_another_embedder_writes_nothing_and_loses_nothing(world, caplog):
    key = await world.conversation(await world.tenant())
    await world.say(key, "before")
    await world.settle()
    before = dict((await world.active()).tenants[key.tenant])
    world.embedder.info = type(world.embedder.info)("other", 16, 256, "2")
    await world.say(key, "after")
    indexer = world.indexer()
    assert await indexer.step() == 0 and await indexer.fill_step() is None
    assert not indexer.figures.writable
    told = {"writable": indexer.figures.writable, "problem": indexer.figures.problem}
    with pytest.raises(Unavailable, match=r"words@1, and the embedder is other@2: run `brain reindex`"):
        check_writing(told)
    assert "words@1" in caplog.text and "other@2" in caplog.text and "brain reindex" in caplog.text
    assert (await world.active()).tenants[key.tenant] == before
    world.embedder.info = type(world.embedder.info)("words", 16, 256, "1")
    await world.settle(indexer)
    check_writing({"writable": indexer.figures.writable, "problem": indexer.figures.problem})
    assert indexer.figures.problem is None
    await world.check()


async def test_the_vectors_of_a_tenant_are_put_in_order_after_writes(world):
    key = await world.conversation(await world.tenant())
    await world.say(key, "x")
    now = [0.0]
    indexer = world.indexer()
    indexer._monotonic = lambda: now[0]
    await world.settle(indexer)
    await indexer.put_in_order()
    store = await world.active()
    assert store.optimised == [], "more may come"
    now[0] = 31.0
    await indexer.put_in_order()
    await indexer.put_in_order()
    assert store.optimised == [key.tenant]


async def test_it_works_by_itself_and_goes_on_after_an_outage(world, caplog):
    key = await world.conversation(await world.tenant())
    await world.settle()
    indexer = world.indexer()

    async def done(written):
        async with asyncio.timeout(30):
            while indexer.figures.written < written or indexer.figures.done < written:
                await asyncio.sleep(0.02)

    indexer.start()
    try:
        await world.say(key, "one")
        await done(2)
        world.embedder.away = True
        await world.say(key, "two")
        async with asyncio.timeout(30):
            while "not indexed at the moment" not in caplog.text:
                await asyncio.sleep(0.02)
        world.embedder.away = False
        await done(4)
        await world.check()
        async with asyncio.timeout(30):
            while (await indexer._outbox.lag()).waiting:
                await asyncio.sleep(0.02)
    finally:
        await indexer.close()
    assert all(task.done() for task in indexer._tasks)
