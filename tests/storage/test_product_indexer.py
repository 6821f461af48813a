"""The vectors of products follow the products, whatever stops their indexer, and a search is the better for them."""

import asyncio
import contextlib

import psycopg
import pytest

from deployments.product_indexer import ProductIndexer, index_all
from domain.embedding import EmbedderInfo
from domain.errors import NotFound, Unavailable
from domain.indexing import identity
from domain.product_indexing import embedded_text, space_of_products
from domain.products import ProductQuery
from serve_app.cli.reindex import build_space
from storage.postgres import reading
from storage.product_vectors import PostgresUnindexedProducts, ProductVectors
from storage.products import PostgresProducts
from storage.spaces import PostgresSpaces
from tests.storage.catalogue_world import SHOP, make_product
from tests.storage.memory_world import Crash, MemoryWorld, Steps, Through, WordEmbedder


class ProductWorld:
    def __init__(self, inner: MemoryWorld) -> None:
        self.inner, self.pool = inner, inner.pool
        self.spaces = PostgresSpaces(inner.pool)
        self.now = 0.0
        self.vectors = ProductVectors(self.spaces, inner.embedder, inner.open_store, lambda: self.now)
        self.products = PostgresProducts(inner.pool, self.vectors)

    def indexer(self, steps: Steps | None = None, lease: float = 60) -> ProductIndexer:
        through = (lambda part: part) if steps is None else (lambda part: Through(part, steps))
        return ProductIndexer(
            through(PostgresUnindexedProducts(self.pool, lease)),
            self.spaces,
            through(self.inner.embedder),
            lambda space: through(self.inner.open_store(space)),
        )

    async def store(self):
        known = await self.spaces.active()
        return self.inner.open_store(space_of_products(known.space))

    async def kept(self, tenant):
        return {id: list(one.vector) for id, one in (await self.store()).tenants.get(tenant, {}).items()}

    async def check(self, tenant, products):
        """The vectors are those of these products, exactly, and nothing waits."""
        vector = self.inner.embedder.vector
        assert await self.kept(tenant) == {one.id: vector(embedded_text(one)) for one in products}
        known = await self.spaces.active()
        assert await PostgresUnindexedProducts(self.pool).waiting(known.space.name) == 0

    async def free(self):
        await self.inner.run("UPDATE brain.product_vectors SET claimed_until = '-infinity'")

    async def settle(self):
        await self.free()
        await index_all(self.indexer(), lambda more: None)


@pytest.fixture
async def products(world):
    await world.run("DELETE FROM brain.product_vectors")
    made = ProductWorld(world)
    await made.spaces.create(world.embedder.info, "active")
    yield made
    await made.vectors.close()


@pytest.fixture
async def tenant(world):
    return await world.tenant()


async def test_every_product_gets_its_vector_and_loses_it_with_the_product(products, tenant):
    await products.products.put(tenant, SHOP)
    await products.settle()
    await products.check(tenant, SHOP)
    await products.products.delete(tenant, "tent")
    await products.settle()
    await products.check(tenant, [one for one in SHOP if one.id != "tent"])
    [(rows,)] = await products.inner.run("SELECT count(*) FROM brain.product_vectors WHERE tenant_id = %s", tenant)
    assert rows == len(SHOP) - 1


async def test_only_what_is_embedded_is_embedded_again(products, tenant):
    await products.products.put(tenant, SHOP)
    await products.settle()
    before = len(products.inner.embedder.texts)
    changed = [one.model_copy(update={"stock": 99, "price": None}) for one in SHOP]
    changed[0] = changed[0].model_copy(update={"title": "Quite another shirt"})
    await products.products.put(tenant, changed)
    await products.settle()
    assert products.inner.embedder.texts[before:] == [embedded_text(changed[0])]
    await products.check(tenant, changed)


async def test_a_product_that_comes_back_before_its_vector_was_removed_is_embedded(products, tenant):
    await products.products.put(tenant, SHOP[:1])
    await products.settle()
    await products.products.delete(tenant, SHOP[0].id)
    await products.products.put(tenant, SHOP[:1])
    await products.settle()
    await products.check(tenant, SHOP[:1])


async def test_an_indexer_that_dies_anywhere_leaves_nothing_undone(products, tenant):
    told = Steps()
    await products.products.put(tenant, SHOP)
    await index_all(products.indexer(told), lambda more: None)
    assert told.made > 8
    for crash_at in range(1, told.made + 1):
        now = [make_product("a", f"A lamp {crash_at}"), make_product("b", f"A chair {crash_at}")]
        await products.products.put(tenant, now)
        if crash_at % 2:
            await products.products.delete(tenant, "b")
            now.pop()
        steps = Steps()
        steps.crash_at = crash_at
        with contextlib.suppress(Crash):
            await index_all(products.indexer(steps), lambda more: None)
        await products.settle()
        await products.check(tenant, [*SHOP, *now])


async def test_a_product_that_changes_while_it_is_embedded_gets_the_vector_of_what_it_became(products, tenant):
    await products.products.put(tenant, SHOP[:1])
    later = SHOP[0].model_copy(update={"title": "Changed meanwhile"})

    class Changing(WordEmbedder):
        async def embed_for(self, embedder, texts):
            made = await super().embed_for(embedder, texts)
            if embedded_text(SHOP[0]) in texts:
                await products.products.put(tenant, [later])
            return made

    indexer = products.indexer()
    indexer._embedder = Changing()
    await index_all(indexer, lambda more: None)
    await products.check(tenant, [later])


async def test_two_indexers_share_the_work(products, tenant):
    many = [make_product(f"p{n:03}", f"Thing number {n}") for n in range(300)]
    await products.products.put(tenant, many)
    done = await asyncio.gather(*(index_all(products.indexer(), lambda more: None) for _ in range(2)))
    assert sum(done) == 300
    await products.check(tenant, many)


async def test_tenants_take_turns(products, world):
    one, other = sorted([await world.tenant(), await world.tenant()])
    await products.products.put(one, [make_product(f"p{n:03}", f"Thing {n}") for n in range(300)])
    await products.products.put(other, SHOP)
    indexer = products.indexer()
    await indexer.step()
    await indexer.step()
    assert len(await products.kept(one)) == 128
    assert len(await products.kept(other)) == len(SHOP)


async def test_a_product_that_cannot_be_embedded_does_not_hold_up_the_others(products, tenant):
    await products.products.put(tenant, SHOP)
    products.inner.embedder.refused = {embedded_text(SHOP[0])}
    indexer = products.indexer()
    await index_all(indexer, lambda more: None)
    assert set(await products.kept(tenant)) == {one.id for one in SHOP[1:]}
    assert indexer.figures.left_out == 1


async def test_without_its_embedder_nothing_is_given_up(products, tenant):
    await products.products.put(tenant, SHOP)
    products.inner.embedder.away = True
    with pytest.raises(Unavailable):
        await products.indexer().step()
    products.inner.embedder.away = False
    await products.settle()
    await products.check(tenant, SHOP)


async def test_another_space_gets_every_product_anew(products, tenant):
    await products.products.put(tenant, SHOP)
    await products.settle()
    await products.inner.run(
        "UPDATE brain.vector_spaces SET state = 'retired', retired_at = now() WHERE state = 'active'"
    )
    products.inner.embedder.info = EmbedderInfo("newer", 16, 256, "1")
    await products.spaces.create(products.inner.embedder.info, "active")
    assert await products.kept(tenant) == {}
    await products.settle()
    await products.check(tenant, SHOP)


@pytest.mark.parametrize(
    "dies", ["before Newer.embed_for", "before MemoryVectors.upsert", "after MemoryVectors.upsert"]
)
async def test_the_service_with_the_new_embedder_indexes_what_a_reindex_that_died_left(products, world, tenant, dies):
    class Newer(WordEmbedder):
        pass

    await world.say(await world.conversation(tenant), "where is my tent")
    await products.products.put(tenant, SHOP)
    await world.settle()
    await products.settle()
    steps, newer = Steps(), Newer("newer", 24)

    def open_store(space):
        if not space.name.endswith("p"):
            return world.open_store(space)
        steps.crash_on = dies  # the messages are done: their space is the active one
        return Through(world.open_store(space), steps)

    with pytest.raises(Crash):
        await build_space(world.pool, Through(newer, steps), open_store)
    known = await products.spaces.active()
    assert known.space.embedder == identity(newer.info)
    assert await PostgresUnindexedProducts(world.pool).waiting(known.space.name) == len(SHOP)
    await products.free()
    assert await products.indexer().step() == 0, "the service before its restart"
    assert len(await products.kept(tenant)) == (len(SHOP) if dies.startswith("after") else 0)

    world.embedder = newer
    await products.settle()
    await products.check(tenant, SHOP)
    await world.settle()
    await world.check()


async def test_a_tenant_that_is_gone_leaves_no_vector(products, world, tenant):
    await products.products.put(tenant, SHOP)
    await products.settle()
    indexer = products.indexer()
    messages = world.indexer()
    messages._forget_tenant = indexer.forget_tenant
    await world.run("DELETE FROM brain.tenants WHERE id = %s", tenant)
    await world.settle(messages)
    assert await products.kept(tenant) == {}


async def test_a_search_finds_what_is_meant_beside_what_is_said(products, tenant):
    await products.products.put(tenant, [*SHOP, make_product("parasol", "Parasol", description="Shade for a garden.")])
    await products.settle()
    embedding = products.inner.embedder.vector("Parasol Shade for a garden.")
    question = ProductQuery("something against the sun", embedding=embedding)
    answer = await products.products.search(tenant, question)
    assert answer.items[0].product.id == "parasol"
    far = [-one for one in embedding]
    assert (await products.products.search(tenant, ProductQuery("xylophone", embedding=far))).items == ()
    only = ProductQuery("something against the sun")
    assert (await products.products.search(tenant, only)).items == ()


async def test_what_is_near_must_pass_the_filters_too(products, tenant):
    await products.products.put(tenant, SHOP)
    await products.settle()
    boots = next(one for one in SHOP if one.id == "boots-1")
    embedding = products.inner.embedder.vector(embedded_text(boots))
    question = ProductQuery("shirt", embedding=embedding, in_stock=True, category="Shoes")
    ids = [one.product.id for one in (await products.products.search(tenant, question)).items]
    assert ids == ["boots-1"]


async def test_without_vectors_words_alone_count(products, tenant):
    await products.products.put(tenant, SHOP)
    embedding = products.inner.embedder.vector("linen shirt")
    wrong = [0.5, 0.5, 0.5, 0.5]
    for vector in (embedding, wrong):
        answer = await products.products.search(tenant, ProductQuery("linen shirt", embedding=vector))
        assert answer.items[0].product.id == "shirt-linen"


async def test_a_misspelt_word_is_found_if_nothing_else_is_called_so(products, tenant):
    await products.products.put(tenant, SHOP)
    for text in ("watreproof boots", "waterprof boots", "WATERPROOOF bots", "hikking"):
        answer = await products.products.search(tenant, ProductQuery(text))
        assert answer.items[0].product.id == "boots-1", text


async def test_a_batch_is_stored_whole_or_not_at_all(products, tenant):
    bad = make_product("bad", "Bad", price="-1")
    with pytest.raises(Exception, match="products_price_check"):
        await products.products.put(tenant, [*SHOP, bad])
    with pytest.raises(NotFound):
        await products.products.product(tenant, SHOP[0].id)


async def test_putting_tells_how_many_were_new_and_each_change_is_told_of_once(products, tenant):
    assert await products.products.put(tenant, SHOP) == len(SHOP)
    assert await products.products.put(tenant, SHOP) == 0
    await products.products.delete(tenant, "tent")
    assert await products.products.put(tenant, [*SHOP, *SHOP]) == 1
    with pytest.raises(NotFound):
        await products.products.delete(tenant, "nothing")
    told = await products.inner.run("SELECT topic, payload FROM brain.outbox WHERE tenant_id = %s ORDER BY id", tenant)
    assert [(topic, len(payload["product_ids"])) for topic, payload in told] == [
        ("product.changed", len(SHOP)),
        ("product.deleted", 1),
        ("product.changed", 1),
    ]


async def test_a_tenant_cannot_read_or_write_anothers_rows(products, world, tenant):
    other = await world.tenant()
    await products.products.put(tenant, SHOP)
    async with reading(products.pool, other) as lent:
        for table in ("products", "product_vectors"):
            assert await lent.fetchval(f"SELECT count(*) FROM brain.{table}") == 0
        assert await lent.fetch("SELECT * FROM brain.like_lexemes('shi')") == []
        found = await lent.fetch(
            "SELECT * FROM brain.find_products('shirt', NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL,"
            " 'relevance', NULL, true, 10)"
        )
        assert found == []
    with psycopg.connect(world.url) as connection:
        [(count,)] = connection.execute("SELECT count(*) FROM brain.products WHERE tenant_id = %s", [tenant]).fetchall()
    assert count == len(SHOP)
