"""Feedback on answers, and the complexity scorers that tenants train from it, on a real Postgres."""

import asyncio
import uuid

import asyncpg
import psycopg
import pytest

from domain.errors import NotFound
from domain.ids import new_id
from storage import complexity_scorers
from storage.complexity_scorers import Stored
from storage.postgres import connection
from storage.reader import PostgresReader
from tests.storage.conftest import make_reply, make_send


@pytest.fixture
def reader(pool):
    return PostgresReader(pool)


async def answered(store, key, question="how much is it?"):
    owner = (await store.activate(key, new_id_of_a_host())).ownership
    accepted = await store.accept(key, owner, make_send(key, question))
    activation = await store.activate(key, new_id_of_a_host())
    [turn] = activation.unfinished
    ended = await store.finish(key, activation.ownership, turn, 1, make_reply("ten euros"))
    return accepted.user_message, ended.message


def new_id_of_a_host():
    return str(uuid.uuid4())


async def test_the_last_word_counts_and_can_be_taken_back(store, key, reader):
    _, answer = await answered(store, key)
    first = await reader.put_feedback(key.tenant, answer.id, 0.2, "not what I asked")
    second = await reader.put_feedback(key.tenant, answer.id, 0.9, None)
    assert (first.score, second.score, second.comment) == (0.2, 0.9, None)
    assert (await reader.feedback(key.tenant, answer.id)).score == 0.9
    await reader.remove_feedback(key.tenant, answer.id)
    with pytest.raises(NotFound):
        await reader.feedback(key.tenant, answer.id)


async def test_only_answers_of_the_own_tenant_get_feedback(store, key, reader):
    question, answer = await answered(store, key)
    for tenant, message in ((key.tenant, question.id), (new_id("ten"), answer.id), (key.tenant, new_id("msg"))):
        with pytest.raises(NotFound):
            await reader.put_feedback(tenant, message, 1, None)
    await reader.put_feedback(key.tenant, answer.id, 1, None)
    with pytest.raises(NotFound):
        await reader.feedback(new_id("ten"), answer.id)


async def test_what_is_learned_from_is_the_question_with_its_model_and_score(store, key, reader, database_url):
    _, answer = await answered(store, key, "is it red?")
    await reader.put_feedback(key.tenant, answer.id, 0.1, None)
    [example] = [one for one in complexity_scorers.examples(database_url, key.tenant) if one.text == "is it red?"]
    assert (example.text, example.model, example.score) == ("is it red?", "scripted", pytest.approx(0.1))


async def test_a_scorer_has_versions_of_which_one_is_active(pool, tenant, database_url):
    assert await complexity_scorers.active(pool, tenant) is None
    for made in (b"first", b"second"):
        complexity_scorers.put(database_url, tenant, "minilm", made, {"quantiles": [0.1, 0.9]})
    assert await complexity_scorers.active(pool, tenant) == Stored(2, "minilm", b"second", [0.1, 0.9])
    assert complexity_scorers.activate(database_url, tenant, 1)
    assert (await complexity_scorers.active(pool, tenant)).artefact == b"first"
    assert not complexity_scorers.activate(database_url, tenant, 9)
    assert (await complexity_scorers.active(pool, tenant)).version == 1, "an unknown version changes nothing"
    assert complexity_scorers.activate(database_url, tenant, None)
    assert await complexity_scorers.active(pool, tenant) is None
    assert await complexity_scorers.active(pool, new_id("ten")) is None


async def test_the_service_cannot_write_scorers(pool, tenant):

    async with connection(pool) as lent:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await lent.execute(
                "INSERT INTO brain.complexity_scorers (tenant_id, version, embedder, artefact)"
                " VALUES ($1, 1, 'x', 'x')",
                tenant,
            )


async def test_a_deleted_conversation_takes_its_feedback_along(store, key, reader, database_url):
    _, answer = await answered(store, key)
    await reader.put_feedback(key.tenant, answer.id, 1, None)
    await store.delete(key, (await store.activate(key, new_id_of_a_host())).ownership)
    with psycopg.connect(database_url) as owner:
        assert owner.execute("SELECT count(*) FROM brain.feedback WHERE message_id = %s", (answer.id,)).fetchone() == (
            0,
        )


async def test_feedback_on_an_answer_that_is_deleted_meanwhile_finds_none(store, key, reader, database_url):
    _, answer = await answered(store, key)
    with psycopg.connect(database_url) as deleting, psycopg.connect(database_url, autocommit=True) as looking:
        deleting.execute("DELETE FROM brain.messages WHERE id = %s", (answer.id,))
        giving = asyncio.create_task(reader.put_feedback(key.tenant, answer.id, 0.5, None))
        async with asyncio.timeout(10):
            while not looking.execute(
                "SELECT 1 FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))", (deleting.info.backend_pid,)
            ).fetchone():
                await asyncio.sleep(0.01)
        deleting.commit()
        with pytest.raises(NotFound):
            await giving
