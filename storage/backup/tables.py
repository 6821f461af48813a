"""What there is to back up, read from the database's catalogue: a new table is in the next backup by itself."""

from graphlib import CycleError, TopologicalSorter
from typing import Any

import psycopg
from psycopg import sql

from storage.backup import BackupRefused
from storage.backup.manifest import Sequence

SCHEMA = "brain"
LEFT_OUT = {"hosts", "outbox_claims", "message_words"}
"""Who is alive, and works on what: true of one moment only. And what is made of messages, also by a restore."""
_TABLES = """
SELECT c.relname::text, array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.attgenerated = '')
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    GROUP BY c.relname ORDER BY c.relname
"""
_REFERENCES = """
SELECT o.relname::text, r.relname::text FROM pg_constraint f
    JOIN pg_class o ON o.oid = f.conrelid JOIN pg_class r ON r.oid = f.confrelid
    WHERE f.contype = 'f' AND o.oid <> r.oid AND o.relnamespace = to_regnamespace(%s)
"""
_FILTERED = """
WITH applying AS (
    SELECT polrelid, polpermissive, pg_get_expr(polqual, polrelid) = 'true' AS lets_all FROM pg_policy
        WHERE polcmd IN ('*', 'r') AND EXISTS (
            SELECT FROM unnest(polroles) AS role WHERE role = 0 OR pg_has_role(role, 'USAGE'))
)
SELECT relname::text FROM pg_class c
    WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'p') AND row_security_active(oid) AND (
        NOT EXISTS (SELECT FROM applying WHERE polrelid = c.oid AND polpermissive AND lets_all)
        OR EXISTS (SELECT FROM applying WHERE polrelid = c.oid AND NOT polpermissive AND NOT lets_all))
    ORDER BY relname
"""


def tables(connection: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """The columns of each table, without those that are generated, in an order in which the tables can be filled."""
    columns = {name: kept for name, kept in connection.execute(_TABLES, [SCHEMA]) if name not in LEFT_OUT}
    order: TopologicalSorter[str] = TopologicalSorter({name: [] for name in columns})
    for owner, referred in connection.execute(_REFERENCES, [SCHEMA]):
        if owner in columns and referred in columns:
            order.add(owner, referred)
    try:
        return {name: columns[name] or [] for name in order.static_order()}
    except CycleError as error:
        raise BackupRefused(f"tables refer to each other in a circle: {', '.join(error.args[1])}") from error


def filtered(connection: psycopg.Connection[Any]) -> list[str]:
    """Tables of which row-level security hides rows from this role."""
    return [name for (name,) in connection.execute(_FILTERED, [SCHEMA])]


def sequences(connection: psycopg.Connection[Any]) -> list[Sequence]:
    """Where each stands. A sequence belongs to no transaction: read it after the rows that it numbered."""
    names = connection.execute(
        "SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind = 'S' ORDER BY 1",
        [SCHEMA],
    ).fetchall()
    found = []
    for (name,) in names:
        row = connection.execute(sql.SQL("SELECT last_value, is_called FROM {}").format(qualified(name))).fetchone()
        assert row is not None
        found.append(Sequence(name=name, last=row[0], called=row[1]))
    return found


def qualified(name: str) -> sql.Identifier:
    return sql.Identifier(SCHEMA, name)
