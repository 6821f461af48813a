"""An outbox that nobody empties: it is told, and an operator gets past the consumer, by a command alone."""

import asyncio

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from domain.errors import Unavailable
from serve_app.cli import app
from serve_app.embedded.refusal import Refusal
from serve_app.outbox_watch import OutboxWatch
from storage.leases import PostgresLeases
from storage.outbox import PostgresOutbox
from tests.conftest import make_database

OLD = "UPDATE brain.outbox SET created_at = now() - interval '25 hours'"


@pytest.fixture
def url(postgres_folder, monkeypatch):
    url = make_database(postgres_folder)
    monkeypatch.setenv("BRAIN_DATABASE_ADMIN_URL", url)
    return url


def brain(*arguments):
    result = CliRunner().invoke(app, ["outbox", *arguments])
    if isinstance(result.exception, Refusal):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


async def test_events_that_wait_too_long_are_told_by_whoever_looks(world):
    registry = CollectorRegistry()
    watch = OutboxWatch(PostgresOutbox(world.pool, "indexer"), registry)
    await world.say(await world.conversation(await world.tenant()), "one")
    await watch.look()
    watch.check()
    assert registry.get_sample_value("brain_outbox_waiting_rows") == 2
    await world.run(OLD)
    await watch.look()
    with pytest.raises(Unavailable, match="2 events wait to be indexed, the oldest for 1,500 minutes"):
        watch.check()
    for name in ("brain_outbox_oldest_seconds", "brain_outbox_waiting_seconds"):
        assert registry.get_sample_value(name) >= 25 * 3600
    assert registry.get_sample_value("brain_outbox_bytes") > 0
    await world.settle()
    await watch.look()
    watch.check()


async def test_a_consumer_that_does_not_come_back_is_passed_by(world):
    leases, outbox = PostgresLeases(world.pool), PostgresOutbox(world.pool, "indexer")
    key = await world.conversation(await world.tenant())
    said = {*(await world.say(key, "one parcel", "another parcel"))}
    await world.run(OLD)
    await world.say(key, "two")
    await leases.prune()
    assert (await outbox.lag()).waiting == 4, "nothing is dropped by itself"
    assert "indexer: 4 wait, the oldest for 90,00" in await asyncio.to_thread(brain, "show")
    assert await asyncio.to_thread(brain, "skip", "indexer") == "2 events are skipped: run `brain reindex`\n"
    assert (await outbox.lag()).waiting == 2, "younger ones go on waiting"
    assert {id for (id,) in await world.run("SELECT message_id FROM brain.message_words")} == said
    await leases.prune()
    assert await world.run("SELECT count(*) FROM brain.outbox") == [(2,)]
    assert (
        await asyncio.to_thread(brain, "skip", "indexer", "--older-than", "0")
        == "2 events are skipped: run `brain reindex`\n"
    )


async def test_a_row_that_was_skipped_is_done_for_whoever_held_it(world):
    outbox = PostgresOutbox(world.pool, "indexer")
    await world.say(await world.conversation(await world.tenant()), "one")
    [(generation,)] = await world.run("SELECT generation FROM brain.outbox_consumers")
    claims = await outbox.claim(generation, 10)
    await asyncio.to_thread(brain, "skip", "indexer", "--older-than", "0")
    assert await outbox.confirm(generation, [claim.id for claim in claims]) == 0
    assert await world.run("SELECT DISTINCT confirmed FROM brain.outbox") == [(["indexer"],)]


def test_what_cannot_be_skipped_is_told(url):
    with pytest.raises(Refusal, match="no consumer nobody"):
        brain("skip", "nobody")
    with pytest.raises(Refusal, match="brain reindex"):
        brain("skip", "reindex")


def test_the_service_may_ask_for_the_size_and_skips_nothing(url):
    with psycopg.connect(url) as connection:
        connection.execute("SET ROLE brain_app")
        size = connection.execute("SELECT seconds FROM brain.outbox_size()").fetchone()
        assert size == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT brain.skip_outbox('indexer', now(), 1)")
