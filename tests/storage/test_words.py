"""Words of messages: found from a turn's commit on, though no turn writes them."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from storage.migrations import downgrade, indexes, transaction, upgrade, upgrade_within, words
from storage.recall import Filters, PostgresRecall
from tests.conftest import make_database, wait_until

KEPT = "SELECT message_id FROM brain.message_words ORDER BY 1"
BUILT = "SELECT relname::text FROM pg_class WHERE relname IN (%s, %s)"


@pytest.fixture
def url(postgres_folder):
    return make_database(postgres_folder)


async def found(world, tenant, query):
    return set(await PostgresRecall(world.pool).by_words(tenant, query, 10, Filters()))


async def test_words_are_found_before_and_after_the_indexer_kept_them(world):
    key = await world.conversation(await world.tenant())
    asked, answered = await world.say(key, "my blue parcel", "your parcel is here")
    assert await world.run(KEPT) == [], "the turn paid nothing for them"
    assert await found(world, key.tenant, "parcel") == {asked, answered}
    await world.settle()
    assert {id for (id,) in await world.run(KEPT)} == {asked, answered}
    assert await found(world, key.tenant, "parcel") == {asked, answered}
    assert await found(world, key.tenant, "blue parcel") == {asked}
    assert await found(world, await world.tenant(), "parcel") == set()
    await world.reader.delete_message(key.tenant, asked)
    assert await world.run(KEPT) == [(answered,)]
    assert await found(world, key.tenant, "parcel") == {answered}


async def test_a_message_without_a_meaning_is_found_by_its_words(world):
    key = await world.conversation(await world.tenant())
    await world.settle()
    asked, answered = await world.say(key, "an odd parcel", "fine")
    world.embedder.refused = {"an odd parcel"}
    await world.settle()
    assert await world.run("SELECT count(*) FROM brain.outbox_set_aside") == [(2,)]
    assert {id for (id,) in await world.run(KEPT)} == {asked, answered}


async def test_a_message_that_is_deleted_while_its_words_are_kept_holds_nothing_up(world, url):
    key = await world.conversation(await world.tenant())
    await world.settle()
    asked, _ = await world.say(key, "one", "two")
    [(event,)] = await world.run("SELECT id FROM brain.outbox WHERE payload->>'message_id' = %s", asked)
    with psycopg.connect(url) as deleting, psycopg.connect(url) as keeping, ThreadPoolExecutor(1) as executor:
        deleting.execute("DELETE FROM brain.messages WHERE id = %s", [asked])
        keeping.execute("SET ROLE brain_definer")
        pid = keeping.info.backend_pid
        work = executor.submit(keeping.execute, "SELECT brain.keep_words(%s)", [[event]])
        with psycopg.connect(url, autocommit=True) as watching:
            wait_until(
                lambda: watching.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0", [pid]).fetchone() == (True,),
                what="the wait for the deletion",
            )
        deleting.commit()
        work.result(30)
    assert await world.run(KEPT) == []


async def test_what_was_confirmed_before_the_table_is_filled_in_while_it_is_found_as_before(world, url, monkeypatch):
    monkeypatch.setattr(words, "PAGE", 2)
    downgrade(url, "0009")
    await world.run(f"CREATE INDEX {words.BEFORE} ON brain.messages USING gin (brain.words(tenant_id, content))")
    key = await world.conversation(await world.tenant())
    said = [await world.say(key, f"parcel {n}", f"answer {n}") for n in range(3)]
    asked = {one for one, _ in said}
    held = await world.indexer()._outbox.claim(
        (await world.run("SELECT generation FROM brain.outbox_consumers"))[0][0], 9
    )
    assert held
    with transaction(url) as connection:
        upgrade_within(connection)
    assert await world.run(
        "SELECT count(*) FROM brain.outbox_claims c JOIN brain.outbox_consumers o"
        " ON o.name = c.consumer AND o.generation = c.generation"
    ) == [(0,)], "who works as before is done with it"
    await world.run("UPDATE brain.outbox SET confirmed = '{indexer}'")
    assert await found(world, key.tenant, "parcel") == asked
    indexes.build(url)
    assert len(await world.run(KEPT)) == 6
    assert await world.run(BUILT, words.BEFORE, words.INDEX) == [(words.INDEX,)]
    assert await found(world, key.tenant, "parcel") == asked
    downgrade(url, "0009")
    assert await found(world, key.tenant, "parcel") == asked
    upgrade(url)
    assert await found(world, key.tenant, "parcel") == asked
