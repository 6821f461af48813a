"""The indexer and search with the real vectors and the real embedder, without a cluster."""

import asyncio

from deployments.embedder import Embedder
from deployments.indexer import Indexer
from serve_app.embedders import HeldTo
from serve_app.memory import Memory
from serve_app.settings import Settings
from serve_app.vectors import vectors
from storage.outbox import PostgresOutbox
from storage.recall import Filters, PostgresRecall
from storage.spaces import PostgresSpaces
from storage.stored_texts import PostgresStoredTexts
from tests.conftest import make_database
from tests.servers.given import open_pool
from tests.storage.memory_world import MemoryWorld

SAID = (
    "My parcel has not arrived yet and I am getting worried.",
    "I would like to have my money back.",
    "Which colours does the rain jacket come in?",
    "I cannot log in, the password is refused.",
)


async def test_messages_are_found_by_their_meaning_until_they_are_deleted(postgres_folder, tmp_path):
    url = make_database(postgres_folder)
    pool = await open_pool(url, 4)
    world = MemoryWorld(url, pool)
    embedder = HeldTo(await asyncio.to_thread(Embedder, "packaged"))
    opened = vectors(Settings(vectors_url=str(tmp_path / "vectors")))
    outbox, spaces = PostgresOutbox(pool, "indexer"), PostgresSpaces(pool)
    indexer = Indexer(outbox, spaces, PostgresStoredTexts(pool), embedder, opened)
    memory = Memory(PostgresRecall(pool), spaces, embedder, opened)
    key = await world.conversation(await world.tenant(), "ann")
    other = await world.conversation(await world.tenant(), "ann")
    said = [(await world.say(key, text, f"Answer {n}."))[0] for n, text in enumerate(SAID)]
    await world.say(other, SAID[0])
    await world.settle(indexer)
    for query, wanted in (
        ("the delivery of my package is late", 0),
        ("refund please", 1),
        ("what colors are there", 2),
        ("sign-in problem", 3),
    ):
        found = await memory.search(key.tenant, query, 3, Filters(role="user"))
        assert found.found[0].one.id == said[wanted], query
        assert found.degraded == ()
    elsewhere = await world.conversation(key.tenant, "ann")
    [past] = await memory.similar(elsewhere, "ann", "where is my package?", None, 1)
    assert (past.question, past.answer) == (SAID[0], "Answer 0.")
    await world.reader.delete_message(key.tenant, said[0])
    await world.settle(indexer)
    await indexer.put_in_order()
    known = await spaces.active()
    assert known is not None
    store = opened(known.space)
    assert await store.count(key.tenant) == 7 and await store.count(other.tenant) == 2
    assert await store.fetch(key.tenant, said[:1]) == []
    for part in (indexer, memory, store, world, pool):
        await part.close()
