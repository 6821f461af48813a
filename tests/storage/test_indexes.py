"""Indexes that are built beside running turns."""

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psycopg

from storage.migrations import downgrade, indexes, offline_sql, upgrade
from tests.conftest import wait_until

VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('brain.turns_by_intent')"


def valid(url):
    with psycopg.connect(url) as connection:
        return connection.execute(VALID).fetchone()


def test_an_upgrade_builds_them_and_a_downgrade_takes_them_away(url):
    assert valid(url) == (True,)
    downgrade(url, "0005")
    assert valid(url) is None
    upgrade(url, "0005")
    assert valid(url) is None, "the schema has no use for it yet"
    upgrade(url)
    assert valid(url) == (True,)


def test_one_process_builds_and_the_others_go_on(url):
    with psycopg.connect(url) as connection:
        connection.execute("DROP INDEX brain.turns_by_intent")
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [indexes.LOCK])
        indexes.build(url)
        assert valid(url) is None


HOLDERS = """
SELECT a.state, a.pid = (SELECT pid FROM pg_stat_activity b WHERE b.query LIKE 'CREATE INDEX CONCURRENTLY%%')
    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.objid = %s AND a.datname = current_database()
"""


def test_the_builder_is_alone_by_a_transaction_and_not_by_a_session(url):
    """A pooler gives each statement another session, but a transaction keeps its own."""
    with psycopg.connect(url) as connection:
        connection.execute("DROP INDEX IF EXISTS brain.turns_by_intent")
    with psycopg.connect(url) as earlier, psycopg.connect(url, autocommit=True) as watching:
        with ThreadPoolExecutor(1) as executor:
            earlier.execute("DELETE FROM brain.turns")
            building = executor.submit(indexes.build, url)
            wait_until(lambda: valid(url) == (False,), what="the build's begin")
            assert watching.execute(HOLDERS, [indexes.LOCK]).fetchall() == [("idle in transaction", False)]
            indexes.build(url)
            assert valid(url) == (False,), "the second one leaves it to the first"
            earlier.commit()
            building.result(30)
        assert watching.execute(HOLDERS, [indexes.LOCK]).fetchall() == []
    assert valid(url) == (True,)


def test_writes_go_on_beside_the_build(url):
    with psycopg.connect(url) as connection:
        connection.execute("DROP INDEX IF EXISTS brain.turns_by_intent")
    with psycopg.connect(url) as earlier, ThreadPoolExecutor(1) as executor:
        earlier.execute("DELETE FROM brain.turns")  # the build waits for the end of what wrote before it
        building = executor.submit(indexes.build, url)
        wait_until(lambda: valid(url) == (False,), what="the build's begin")
        with psycopg.connect(url) as later:
            later.execute("SET LOCAL lock_timeout = '5s'")
            later.execute("DELETE FROM brain.turns")
        assert not building.done()
        earlier.commit()
        building.result(30)
    assert valid(url) == (True,)


def test_what_a_broken_build_left_behind_is_made_again(url, postgres_folder):
    database = urlsplit(url).path
    with psycopg.connect(f"postgresql://postgres@{database}?host={postgres_folder}") as connection:
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass('brain.turns_by_intent')"
        )
    assert valid(url) == (False,)
    upgrade(url)
    assert valid(url) == (True,)


def test_sql_for_review_names_them_last():
    assert offline_sql().rstrip().endswith("WHERE intent IS NOT NULL;")
    assert "turns_by_intent" not in offline_sql("0005")
