"""`brain reindex` as it is typed: on a database and vectors that the environment names."""

import asyncio

import psycopg
import pytest
from typer.testing import CliRunner

from domain.vectors import Space
from serve_app.cli import app
from serve_app.embedded.refusal import Refusal
from storage.bootstrap import bootstrap
from storage.vectors import open_vectors
from tests.conftest import make_database
from tests.storage.memory_world import MemoryWorld


@pytest.fixture
def url(postgres_folder, tmp_path, monkeypatch):
    url = make_database(postgres_folder)
    monkeypatch.setenv("BRAIN_DATABASE_URL", url)
    monkeypatch.setenv("BRAIN_DATA", str(tmp_path))
    return url


def run(*arguments):
    result = CliRunner().invoke(app, ["reindex", *arguments])
    if isinstance(result.exception, Refusal):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def say(url, tenant, *texts):
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO brain.conversations (tenant_id, id) VALUES (%s, 'conv_1')", [tenant])
        for n, text in enumerate(texts, 1):
            connection.execute(
                "INSERT INTO brain.messages (tenant_id, conversation_id, seq, id, turn_id, turn_order, role, content,"
                " status, created_at) VALUES (%s, 'conv_1', %s, %s, 't', %s, 'user', %s, 'completed', now())",
                [tenant, n, f"msg_{n}", n, text],
            )


def test_all_messages_are_in_the_new_space(url, tmp_path):
    tenant = bootstrap(url, "k" * 40)[0]
    say(url, tenant, "where is my parcel", "I want my money back")
    output = run()
    assert "2 messages in" in output and "all-MiniLM-L6-v2@" in output and "is searched from now on" in output
    with psycopg.connect(url) as connection:
        [space] = connection.execute("SELECT name, embedder, dimensions FROM brain.vector_spaces").fetchall()

    async def count() -> int:
        store = open_vectors(str(tmp_path / "vectors"), Space(*space))
        try:
            return await store.count(tenant)
        finally:
            await store.close()

    assert asyncio.run(count()) == 2


def test_there_must_be_something_to_discard(url):
    with pytest.raises(Refusal, match="no space is being built"):
        run("--discard")


def test_a_half_built_space_is_given_up(url):
    async def begin() -> None:
        from storage.spaces import PostgresSpaces
        from tests.servers.given import open_pool

        pool = await open_pool(url, 1)
        await PostgresSpaces(pool).create(MemoryWorld(url, pool).embedder.info, "building")
        await pool.close()

    asyncio.run(begin())
    with pytest.raises(Refusal, match="words@1 is half built"):
        run()
    assert "(words@1) is given up" in run("--discard")


def test_an_embedder_that_cannot_be_loaded_is_told(url, monkeypatch, tmp_path):
    monkeypatch.setenv("BRAIN_EMBEDDER_MODEL", str(tmp_path / "nothing"))
    with pytest.raises(Refusal, match="cannot be loaded"):
        run()
