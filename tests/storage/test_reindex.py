"""A space built beside the active one, while the service goes on."""

import asyncio

import pytest

from deployments.indexer import Indexer
from domain.errors import OtherEmbedder
from domain.indexing import identity
from serve_app.cli.reindex import build_space
from serve_app.embedded.refusal import Refusal
from storage.fence import fence
from storage.leases import PostgresLeases
from storage.spaces import PostgresSpaces
from tests.storage.memory_world import MemoryWorld, WordEmbedder


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr("deployments.space_filling.PAGE", 3)


class Between(WordEmbedder):
    """Something happens before its `n`-th call."""

    def __init__(self, n, what, **fields):
        super().__init__(**fields)
        self._n, self._what = n, what

    async def embed_for(self, embedder, texts):
        self._n -= 1
        if self._n == 0:
            await self._what()
        return await super().embed_for(embedder, texts)


def with_embedder(world: MemoryWorld, embedder: WordEmbedder) -> Indexer:
    """An indexer of a service that was started with this embedder."""
    before, world.embedder = world.embedder, embedder
    try:
        return world.indexer()
    finally:
        world.embedder = before


async def talk(world, n=8):
    tenants = [await world.tenant() for _ in range(2)]
    keys = [await world.conversation(tenant, "u") for tenant in tenants for _ in range(2)]
    return keys, [await world.say(keys[i % 4], f"question {i}", f"answer {i}") for i in range(n)]


@pytest.mark.parametrize("page", [1, 2, 4, 6])
async def test_what_is_written_and_deleted_meanwhile_is_in_the_new_space(world, page):
    keys, said = await talk(world)
    old = await world.settle()

    async def meanwhile():
        await world.say(keys[0], "said meanwhile", "answered meanwhile")
        await world.reader.delete_message(keys[0].tenant, said[0][0])
        await world.reader.delete_message(keys[3].tenant, said[7][1])
        await world.delete_conversation(keys[1])
        while await old.step():  # the old one confirms all of it, for the old space
            pass
        await world.check()
        assert await world.run("SELECT count(*) FROM brain.outbox WHERE NOT confirmed @> '{indexer}'") == [(0,)]

    embedder = Between(page, meanwhile, name="newer", dimensions=24)
    before = await world.active()
    told = await build_space(world.pool, embedder, world.open_store)
    assert "newer@1 is searched from now on" in told
    assert await old.step() == 0 and not old.figures.writable
    with pytest.raises(OtherEmbedder, match=r"newer@1, and the embedder is words@1: run `brain reindex`"):
        await world.embedder.embed_for((await world.active()).space.embedder, ["q"])
    world.embedder = embedder
    await world.settle()
    assert await world.active() is not before
    await world.check()


async def test_stopped_it_goes_on_where_it_was(world):
    await talk(world)
    await world.settle()

    async def stop():
        raise KeyboardInterrupt

    first = Between(3, stop, name="newer")
    with pytest.raises(KeyboardInterrupt):
        await build_space(world.pool, first, world.open_store)
    before = await world.active()
    assert before.space.embedder == "words@1", "the old one is searched until all is done"
    second = WordEmbedder("newer")
    await build_space(world.pool, second, world.open_store)
    assert first.texts and second.texts and not set(first.texts) & set(second.texts), "nothing is embedded twice"
    world.embedder = second
    await world.settle()
    await world.check()


async def test_a_killed_one_keeps_others_out_for_its_lease(world):
    await talk(world)
    await world.settle()
    spaces = PostgresSpaces(world.pool)
    await spaces.create(WordEmbedder("newer").info, "building")
    building = await spaces.building()
    assert building is not None and await spaces.fill(building.space.name) == ("", "")
    with pytest.raises(Refusal, match="another `brain reindex`"):
        await build_space(world.pool, WordEmbedder("newer"), world.open_store)
    await world.leases_run_out()
    await build_space(world.pool, world_embedder := WordEmbedder("newer"), world.open_store)
    assert await spaces.fill(building.space.name) is None and not await spaces.finish(building.space.name)
    world.embedder = world_embedder
    await world.settle()
    await world.check()


async def test_a_half_built_space_belongs_to_one_embedder_and_can_be_given_up(world):
    await talk(world)
    await world.settle()
    spaces = PostgresSpaces(world.pool)
    await spaces.create(WordEmbedder("newer").info, "building")
    with pytest.raises(Refusal, match=r"newer@1 is half built, and the embedder is newest@1.*--discard"):
        await build_space(world.pool, WordEmbedder("newest"), world.open_store)
    building = await spaces.building()
    assert building is not None and await spaces.retire(building.space.name)
    assert not await spaces.retire((await world.active()).space.name), "the active one is only ever replaced"
    assert await world.run("SELECT name FROM brain.outbox_consumers ORDER BY 1") == [("indexer",)]


async def test_nothing_is_pruned_while_a_space_is_built(world):
    await talk(world, 2)
    await world.settle()
    await PostgresSpaces(world.pool).create(WordEmbedder("newer").info, "building")
    await world.run("UPDATE brain.outbox SET created_at = now() - interval '2 days'")
    await PostgresLeases(world.pool).prune()
    assert (await world.run("SELECT count(*) > 0 FROM brain.outbox"))[0][0]
    await build_space(world.pool, WordEmbedder("newer"), world.open_store)
    await PostgresLeases(world.pool).prune()
    assert await world.run("SELECT count(*) FROM brain.outbox") == [(0,)]


async def test_a_retired_space_is_removed_when_nobody_can_work_on_it_any_more(world):
    await talk(world, 2)
    indexer = await world.settle()
    before = await world.active()
    await build_space(world.pool, world.embedder, world.open_store)
    await indexer.put_in_order()
    assert not before.dropped
    await world.run("UPDATE brain.vector_spaces SET retired_at = retired_at - interval '3 min' WHERE state = 'retired'")
    await indexer.put_in_order()
    assert before.dropped
    assert await world.run("SELECT name, state FROM brain.vector_spaces") == [
        ((await world.active()).space.name, "active")
    ]


async def test_after_a_database_was_put_back_the_vectors_are_made_anew(world):
    keys, _ = await talk(world)
    await world.settle()
    before = await world.active()
    before.tenants[keys[0].tenant].clear()  # of a moment at which these were not there
    fence(world.url)
    await world.settle()
    assert await world.active() is not before
    await world.check()


async def test_two_first_starts_make_one_space(world):
    await asyncio.gather(*(world.indexer().space() for _ in range(4)))
    assert await world.run("SELECT count(*) FROM brain.vector_spaces") == [(1,)]
    active = await PostgresSpaces(world.pool).active()
    assert active is not None and active.space.embedder == identity(world.embedder.info)


async def test_a_claim_from_before_the_change_confirms_nothing(world):
    keys, _ = await talk(world, 2)
    await world.settle()
    await world.say(keys[0], "in between")
    slow = world.indexer()
    confirm = slow._outbox.confirm

    async def after_the_change(generation, ids):
        await build_space(world.pool, embedder, world.open_store)
        return await confirm(generation, ids)

    embedder = WordEmbedder("newer")
    slow._outbox.confirm = after_the_change
    await slow.step()
    assert slow.figures.done == 0
    world.embedder = embedder
    await world.settle()
    await world.check()
