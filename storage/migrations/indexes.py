"""Indexes of tables that every turn writes: built after the migration that needs them, while turns go on.

`CREATE INDEX` in a migration's transaction would hold up every write to its table until the end. Without its index a
query is slow, not wrong; so what a broken build left behind is made again by the next upgrade.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from storage.migrations import words

INDEXES = {
    "outbox_of_indexer": ("vector_spaces", "ON brain.outbox (tenant_id, id) WHERE NOT (confirmed @> '{indexer}')"),
    "outbox_of_relay": ("relays", "ON brain.outbox (id) WHERE NOT (confirmed @> '{relay}')"),
    "outbox_of_deliveries": ("deliveries", "ON brain.outbox (tenant_id, id) WHERE NOT (confirmed @> '{deliveries}')"),
    words.INDEX: (words.TABLE, f"ON brain.{words.TABLE} USING gin (words)"),
    "turns_by_intent": (
        "intents",
        "ON brain.turns (tenant_id, (intent->>'name'), id, ((intent->>'confidence')::double precision))"
        " WHERE intent IS NOT NULL",
    ),
}
"""By name: a table of the migration that needs it, and what it covers."""
LOCK = 7215
_STATE = """
SELECT to_regclass('brain.' || %(needs)s) IS NOT NULL AS wanted,
    (SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('brain.' || %(name)s)) AS valid
"""


def build(url: str) -> None:
    """Build what is missing, without holding anybody up. Returns at once where another process is building."""
    with _alone(url) as alone, psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        if not alone:
            return
        for name, (needs, covered) in INDEXES.items():
            wanted, valid = _first(connection, _STATE, {"needs": needs, "name": name})
            if wanted and valid is False:
                connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS brain.{name}")
            if wanted and not valid and name == words.INDEX:
                words.fill(connection)
            if wanted and not valid:
                connection.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} {covered}")
            if wanted and name == words.INDEX:
                connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS brain.{words.BEFORE}")


@contextmanager
def _alone(url: str) -> Iterator[bool]:
    """Whether nobody else builds, as long as this goes on.

    The lock is a transaction's, on a connection of its own: a session's would be left behind with a pooler that gives
    each statement another one, and an index cannot be built within a transaction. A build waits for all snapshots that
    are older: so the lock is tried, not waited for, and asked for without parameters, whose portal would keep one.
    """
    with psycopg.connect(url, prepare_threshold=None) as connection:
        row = connection.execute(f"SELECT pg_try_advisory_xact_lock({LOCK})").fetchone()
        connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield row is not None and bool(row[0])
        connection.rollback()


def build_within(connection: psycopg.Connection[Any]) -> None:
    """The same as a part of the connection's transaction, where nobody else works on the database."""
    for name, (needs, covered) in INDEXES.items():
        if _first(connection, _STATE, {"needs": needs, "name": name})[0]:
            if name == words.INDEX:
                words.fill(connection)
                connection.execute(f"DROP INDEX IF EXISTS brain.{words.BEFORE}")
            connection.execute(f"CREATE INDEX IF NOT EXISTS {name} {covered}")


def offline() -> str:
    built = "".join(
        f"\nCREATE INDEX CONCURRENTLY IF NOT EXISTS {name} {covered};\n" for name, (_, covered) in INDEXES.items()
    )
    return f"{words.ALL};{built}"


def _first(connection: psycopg.Connection[Any], statement: str, values: dict[str, Any]) -> tuple[Any, ...]:
    row = connection.execute(statement, values).fetchone()
    assert row is not None
    return tuple(row)
