"""Makes a backup of one moment, while writers go on."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from storage.backup import BackupRefused, Progress, silent
from storage.backup.archive import archive, pieces
from storage.backup.manifest import NAME, Manifest, Table
from storage.backup.tables import SCHEMA, filtered, qualified, sequences, tables
from storage.private_file import new_file

# What a value is written as must not depend on the login that writes it.
_SETTINGS = (
    "client_encoding = 'UTF8'",
    "datestyle = 'ISO'",
    "intervalstyle = 'postgres'",
    "timezone = 'UTC'",
    "extra_float_digits = 3",
    "bytea_output = 'hex'",
    "statement_timeout = 0",
    "idle_in_transaction_session_timeout = 0",
)


def write_backup(
    admin_url: str, path: Path, brain: str, secrets: Mapping[str, str] | None = None, progress: Progress = silent
) -> Manifest:
    """Write all that the owner of the schema keeps in the database to `path`, and `secrets` by their names.

    `brain`: the version of this code. What is at `path` is replaced at the end. Raises `BackupRefused`, psycopg's
    errors, and OSError where the file cannot be written.
    """
    kept = secrets or {}
    with new_file(path) as file, _moment(admin_url) as (connection, columns), archive(file) as add:
        total, done = _estimate(connection), 0
        copied = []
        for name in columns:
            progress(name, done, total)
            table = _copy(add, connection, name, columns[name], partial(_tell, progress, name, done, total))
            copied.append(table)
            done += table.rows
        for name, secret in kept.items():
            add(f"secrets/{name}", secret.encode())
        revision, at = _identity(connection)
        manifest = Manifest(
            revision=revision,
            brain=brain,
            at=at,
            tables=copied,
            sequences=sequences(connection),
            secrets={name: sha256(secret.encode()).hexdigest() for name, secret in kept.items()},
        )
        add(NAME, manifest.model_dump_json(indent=1).encode())
    return manifest


@contextmanager
def _moment(admin_url: str) -> Iterator[tuple[psycopg.Connection[Any], dict[str, list[str]]]]:
    """A transaction that sees one moment, in which no migration comes between, and the columns of each table."""
    with psycopg.connect(admin_url, autocommit=True, prepare_threshold=None) as connection:
        known = tables(connection)
        if not known:
            raise BackupRefused(f"the database has no schema `{SCHEMA}`")
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        with connection.transaction():  # the moment is that of the first statement that reads: locks come before it
            for setting in _SETTINGS:
                connection.execute(f"SET LOCAL {setting}")
            names = sql.SQL(", ").join(qualified(name) for name in known)
            connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))
            if tables(connection).keys() != known.keys():
                raise BackupRefused("the schema was changed in this moment: try again")
            if hidden := filtered(connection):
                raise BackupRefused(
                    f"row-level security hides rows of {', '.join(hidden)} from this login: use the schema's owner"
                    " (BRAIN_DATABASE_ADMIN_URL)"
                )
            yield connection, tables(connection)


def _tell(progress: Progress, name: str, before: int, total: int, rows: int) -> None:
    progress(name, before + rows, total)


def _copy(
    add: Callable[[str, bytes], None],
    connection: psycopg.Connection[Any],
    name: str,
    columns: list[str],
    tell: Callable[[int], None],
) -> Table:
    digest, rows, size, number = sha256(), 0, 0, 0
    for number, piece in enumerate(pieces(_rows(connection, name, columns)), 1):
        add(f"tables/{name}/{number:06}", piece)
        digest.update(piece)
        rows += piece.count(b"\n")  # one in a value is written as \n
        size += len(piece)
        tell(rows)
    return Table(name=name, columns=columns, rows=rows, bytes=size, pieces=number, sha256=digest.hexdigest())


def _rows(connection: psycopg.Connection[Any], name: str, columns: list[str]) -> Iterator[bytes]:
    wanted = sql.SQL(", ").join(map(sql.Identifier, columns))
    query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(wanted, qualified(name))
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        for row in copy:
            yield bytes(row)


def _identity(connection: psycopg.Connection[Any]) -> tuple[str, datetime]:
    """The schema's revision, and the time."""
    row = connection.execute("SELECT version_num, now() FROM brain_schema_version").fetchone()
    if row is None:
        raise BackupRefused("the schema has no version: run `brain db upgrade` first")
    return row[0], row[1]


def _estimate(connection: psycopg.Connection[Any]) -> int:
    """How many rows there may be, as the server last counted them."""
    row = connection.execute(
        "SELECT coalesce(sum(reltuples) FILTER (WHERE reltuples > 0), 0)::bigint FROM pg_class"
        " WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r'",
        [SCHEMA],
    ).fetchone()
    assert row is not None
    return int(row[0])
