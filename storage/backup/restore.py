"""Puts a backup back in one transaction: what fails leaves the database as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.exc import DBAPIError

from storage import migrations
from storage.backup import BackupRefused, Progress, silent
from storage.backup.manifest import Manifest
from storage.backup.read import Backup
from storage.backup.tables import SCHEMA, qualified, tables
from storage.fence import fence_within
from storage.migrations import indexes

SILENCE = 15.0  # seconds without a sign of life until a host counts as stopped
_SETTINGS = (
    "client_encoding = 'UTF8'",
    "lock_timeout = '10s'",  # for what others hold
    "statement_timeout = 0",
    "idle_in_transaction_session_timeout = 0",
)


@dataclass(frozen=True, slots=True)
class Restored:
    """`fenced`: conversations that had an owner."""

    revision: str
    tenants: frozenset[str]
    fenced: int


def restore(admin_url: str, backup: Backup, replace: bool = False, progress: Progress = silent) -> Restored:
    """Replace the schema by the backup's, brought to this code's version; nobody owns a conversation afterwards.

    Raises `BackupRefused` where a service runs, where there are conversations and not `replace`, and where this code
    does not know the schema; psycopg's errors.
    """
    if backup.manifest.revision not in (known := migrations.revisions()):
        raise BackupRefused(
            f"the backup's schema is {backup.manifest.revision}, which Brain {backup.manifest.brain} wrote;"
            f" this one knows {known[0]} to {known[-1]}: restore with that version or a later one"
        )
    with _plain_errors(), migrations.transaction(admin_url) as within:
        connection = within.connection.driver_connection
        assert isinstance(connection, psycopg.Connection)
        for setting in _SETTINGS:
            connection.execute(f"SET LOCAL {setting}")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [migrations.LOCK])
        _check_stopped(connection)
        _check_empty(connection, replace)
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SCHEMA)))
        connection.execute("DROP TABLE IF EXISTS brain_schema_version")
        migrations.upgrade_within(within, backup.manifest.revision)
        _check_tables(connection, backup.manifest)
        with _fillable(connection):
            _fill(connection, backup, progress)
        progress("migrating", backup.manifest.bytes, backup.manifest.bytes)
        migrations.upgrade_within(within)
        indexes.build_within(connection)
        names = sql.SQL(", ").join(qualified(name) for name in tables(connection))
        connection.execute(sql.SQL("ANALYZE {}").format(names))
        tenants = frozenset(name for (name,) in connection.execute("SELECT id FROM brain.tenants"))
        return Restored(known[-1], tenants, fence_within(connection))


@contextmanager
def _plain_errors() -> Iterator[None]:
    """The driver's own, also where SQLAlchemy wraps them."""
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        raise BackupRefused("others work on the database: end their connections") from error
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):
            raise error.orig from error
        raise


def _check_stopped(connection: psycopg.Connection[Any]) -> None:
    """No host renews its lease; until the end none can begin to."""
    if not _exists(connection, "hosts"):
        return
    connection.execute("LOCK TABLE brain.hosts IN ACCESS EXCLUSIVE MODE")
    row = connection.execute(
        "SELECT extract(epoch FROM clock_timestamp() - max(renewed_at))::float FROM brain.hosts"
    ).fetchone()
    if row is not None and row[0] is not None and row[0] < SILENCE:
        raise BackupRefused(
            f"a host of the service gave a sign of life {max(row[0], 0):.0f} s ago: stop the service; of one that was"
            f" killed that is forgotten after {SILENCE:.0f} s"
        )


def _check_empty(connection: psycopg.Connection[Any], replace: bool) -> None:
    if replace or not _exists(connection, "conversations"):
        return
    row = connection.execute("SELECT count(*) FROM brain.conversations").fetchone()
    if row is not None and row[0] > 0:
        raise BackupRefused(f"there are {row[0]:,} conversations in the database: --replace removes them")


def _exists(connection: psycopg.Connection[Any], name: str) -> bool:
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [f"{SCHEMA}.{name}"]).fetchone()
    return row is not None and bool(row[0])


def _check_tables(connection: psycopg.Connection[Any], manifest: Manifest) -> None:
    made = {name: set(columns) for name, columns in tables(connection).items()}
    saved = {table.name: set(table.columns) for table in manifest.tables}
    if made != saved:
        different = sorted(name for name in made.keys() | saved.keys() if made.get(name) != saved.get(name))
        raise BackupRefused(
            f"{', '.join(different)} of the backup {'is' if len(different) == 1 else 'are'} not as schema"
            f" {manifest.revision} makes {'it' if len(different) == 1 else 'them'}"
        )


@contextmanager
def _fillable(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Rows go in as they are: past row-level security, which `COPY` does not know, and past triggers."""
    forced = connection.execute(
        "SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relforcerowsecurity", [SCHEMA]
    ).fetchall()
    triggers = connection.execute(
        "SELECT relname::text, tgname::text FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid"
        " WHERE relnamespace = to_regnamespace(%s) AND NOT tgisinternal AND tgenabled = 'O'",
        [SCHEMA],
    ).fetchall()
    for (name,) in forced:
        connection.execute(sql.SQL("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY").format(qualified(name)))
    for name, trigger in triggers:
        statement = sql.SQL("ALTER TABLE {} DISABLE TRIGGER {}")
        connection.execute(statement.format(qualified(name), sql.Identifier(trigger)))
    yield
    for name, trigger in triggers:
        statement = sql.SQL("ALTER TABLE {} ENABLE TRIGGER {}")
        connection.execute(statement.format(qualified(name), sql.Identifier(trigger)))
    for (name,) in forced:
        connection.execute(sql.SQL("ALTER TABLE {} FORCE ROW LEVEL SECURITY").format(qualified(name)))


def _fill(connection: psycopg.Connection[Any], backup: Backup, progress: Progress) -> None:
    names = sql.SQL(", ").join(qualified(table.name) for table in backup.manifest.tables)
    connection.execute(sql.SQL("TRUNCATE {} CASCADE").format(names))  # what the migrations put in
    done = 0
    for table, rows in backup.tables():
        progress(table.name, done, backup.manifest.bytes)
        columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
        query = sql.SQL("COPY {} ({}) FROM STDIN").format(qualified(table.name), columns)
        with connection.cursor() as cursor, cursor.copy(query) as copy:
            for chunk in rows:
                copy.write(chunk)
                done += len(chunk)
                progress(table.name, done, backup.manifest.bytes)
    for sequence in backup.manifest.sequences:
        name = qualified(sequence.name).as_string(connection)
        connection.execute("SELECT setval(%s::regclass, %s, %s)", [name, sequence.last, sequence.called])
