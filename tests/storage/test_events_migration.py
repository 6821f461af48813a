"""The way of revision 0018 there and back, and that code of before runs on it."""

import psycopg

from storage.migrations import downgrade, upgrade
from tests.conftest import make_database
from tests.storage.test_privacy_migration import settled


def test_down_and_up_again_is_as_if_nothing_had_been(postgres_folder):
    url = make_database(postgres_folder)
    there = settled(url)
    downgrade(url, "0015")
    before = settled(url)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT name FROM brain.outbox_consumers").fetchall() == [("indexer",)]
    upgrade(url)
    assert settled(url) == there != before
    downgrade(url, "0015")
    assert settled(url) == before
