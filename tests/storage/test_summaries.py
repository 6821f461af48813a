"""Summaries in Postgres: fenced, of one tenant, and gone with what they tell."""

import uuid
from dataclasses import replace

import psycopg
import pytest

from domain.context import Fact, Remembered, Section, Summary
from domain.errors import Fenced, NotFound
from domain.ids import new_id
from storage.conversations import PostgresConversations
from storage.migrations import downgrade, upgrade
from storage.postgres import reading
from storage.reader import PostgresReader
from storage.summaries import on_demand
from tests.conftest import make_database
from tests.servers.given import open_pool
from tests.storage.conftest import make_conversation, make_reply, make_send
from tests.storage.test_ownership import unfinished

TOLD = Summary(
    (Section(1, 1, 2, "- User: I live in Oslo."), Section(3, 5, 6, "- notes", "small")),
    (Fact("lives in", "Oslo", 1), Fact("likes = tea", "tea", 3)),
)


async def owner_of(store, key):
    return (await store.activate(key, str(uuid.uuid4()))).ownership


async def say(store, key, owner, text, answer="fine"):
    send = make_send(key, text)
    turn = unfinished(await store.accept(key, owner, send), send)
    return await store.finish(key, owner, turn, 1, make_reply(answer))


async def stored(pool, tenant):
    async with reading(pool, tenant) as connection:
        return await connection.fetchval("SELECT count(*) FROM brain.summaries")


async def test_the_next_owner_and_whoever_asks_find_the_summary(store, pool, key):
    owner = await owner_of(store, key)
    assert (await store.activate(key, str(uuid.uuid4()))).summary == Summary()
    owner = await owner_of(store, key)
    await store.keep_summary(key, owner, TOLD)
    longer = replace(TOLD, sections=(*TOLD.sections, Section(7, 9, 10, "more")))
    await store.keep_summary(key, owner, longer)
    assert (await store.activate(key, str(uuid.uuid4()))).summary == longer
    told, messages = await PostgresReader(pool).summary(key.tenant, key.conversation)
    assert (told.summary, messages) == (longer, None)


async def test_a_superseded_owner_keeps_no_summary(store, pool, key):
    old = await owner_of(store, key)
    await owner_of(store, key)
    with pytest.raises(Fenced):
        await store.keep_summary(key, old, TOLD)
    assert (await PostgresReader(pool).summary(key.tenant, key.conversation))[0].summary == Summary()


async def test_another_tenant_sees_none(store, pool, key, database_url):
    await store.keep_summary(key, await owner_of(store, key), TOLD)
    other = f"ten_{uuid.uuid4().hex}"
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, 'other')", [other])
    assert await stored(pool, key.tenant) >= 1 and await stored(pool, other) == 0
    with pytest.raises(NotFound):
        await PostgresReader(pool).summary(other, key.conversation)


async def test_a_deleted_message_is_in_no_summary_and_one_behind_it_changes_nothing(store, pool, key):
    reader, owner = PostgresReader(pool), await owner_of(store, key)
    first = await say(store, key, owner, "I live in Oslo.")
    later = await say(store, key, owner, "and the lamp?")
    await store.keep_summary(key, owner, Summary((Section(1, 1, 2, "- User: I live in Oslo."),)))
    await reader.delete_message(key.tenant, later.user_message.id)
    assert (await store.activate(key, str(uuid.uuid4()))).summary.until == 1
    await reader.delete_message(key.tenant, first.user_message.id)
    assert (await store.activate(key, str(uuid.uuid4()))).summary == Summary()


async def test_a_deleted_conversation_takes_its_summary_with_it(store, pool, database_url, key):
    owner = await owner_of(store, key)
    await say(store, key, owner, "hello")
    await store.keep_summary(key, owner, TOLD)
    before = await stored(pool, key.tenant)
    await store.delete(key, owner)
    assert await stored(pool, key.tenant) == before - 1


async def test_a_short_conversation_is_summarised_for_the_answer_and_nothing_is_stored(store, pool, key):
    reader, owner = PostgresReader(pool), await owner_of(store, key)
    told, messages = await reader.summary(key.tenant, key.conversation)
    assert (on_demand(messages), messages) == (Summary(), [])
    await say(store, key, owner, "My name is Ada Quist and I need 3 lamps.", "I will send 3 lamps on 4 May.")
    told, messages = await reader.summary(key.tenant, key.conversation)
    made = on_demand(messages)
    assert told.summary == Summary() and made.seq == 2
    assert made.text(9) == (
        "- User: My name is Ada Quist and I need 3 lamps.\n- Assistant: I will send 3 lamps on 4 May."
    )
    assert made.facts_before(9) == [Fact("name", "Ada Quist", 1)]
    assert (await reader.summary(key.tenant, key.conversation))[0].summary == Summary()


async def test_turns_that_no_summary_covers_are_read_in_their_order(store, key):
    owner = await owner_of(store, key)
    for n in range(4):
        await say(store, key, owner, f"q{n}", f"a{n}")
    found = await store.between(key, 1, 7, 3)
    assert found == [
        Remembered.of(3, 3, "user", "q1"),
        Remembered.of(3, 4, "assistant", "a1"),
        Remembered.of(5, 5, "user", "q2"),
    ]
    assert await store.between(key, 7, 9, 10) == []


async def test_a_report_stands_in_the_trace_of_an_ended_turn(store, pool, key):
    owner = await owner_of(store, key)
    ended = await say(store, key, owner, "hello")
    await store.summary_made(key, ended.turn.id, {"model": "small"}, ())
    assert (await PostgresReader(pool).trace(key.tenant, ended.turn.id))["summary"] == {"model": "small"}
    with pytest.raises(NotFound):
        await store.summary_made(key, new_id("turn"), {"model": "small"}, ())


async def test_the_migration_goes_back_and_forth_under_conversations(postgres_folder):
    url = make_database(postgres_folder)
    tenant = f"ten_{uuid.uuid4().hex}"
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, 'one')", [tenant])
    key, pool = make_conversation(url, tenant), await open_pool(url, 2)
    store = PostgresConversations(pool)
    await store.keep_summary(key, await owner_of(store, key), TOLD)
    downgrade(url, "0005")
    upgrade(url)
    assert (await store.activate(key, str(uuid.uuid4()))).summary == Summary()
    await pool.close()
