"""Whether this code may run on a schema: the newest migration it ships, and the oldest code the schema allows."""

import logging
from pathlib import Path

import asyncpg

from domain.errors import Unavailable
from storage.postgres import Pool, asking

log = logging.getLogger("brain.storage")
MIGRATIONS = Path(__file__).parent / "migrations" / "versions"
SQL = "SELECT revision, compatible_from FROM brain.schema_compatibility()"
PATIENCE = 5  # seconds for a connection


class IncompatibleSchema(Exception):
    """This code must not run on the schema; the message says what to do."""


def shipped() -> str:
    """The newest migration of this code, by the files' names: replicas need not load Alembic for it."""
    return max(path.name.partition("_")[0] for path in MIGRATIONS.glob("[0-9]*.py"))


def check_schema(url: str, code: str | None = None) -> str:
    """The schema's revision, if code whose newest migration is `code` (this code's) may run on it.

    Raises `IncompatibleSchema`, and psycopg's errors where the database cannot be asked.
    """
    import psycopg  # not in replicas

    with psycopg.connect(url, connect_timeout=PATIENCE) as connection:
        try:
            row = connection.execute(SQL).fetchone()
        except (psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName):
            row = None  # older than the function
    return _checked(row, code or shipped())


def check_before(url: str) -> None:
    """As `check_schema`, before any replica is replaced. A database that cannot be asked is not judged: replicas look
    for themselves."""
    import psycopg

    try:
        check_schema(url)
    except psycopg.Error as error:
        log.warning("whether this code fits the schema is not known: %s", error)


async def check_pool(pool: Pool, code: str | None = None) -> None:
    """As `check_schema`, in a replica. A database that is away is not judged: replicas start without it too."""
    try:
        async with asking(pool) as connection:
            row = await connection.fetchrow(SQL)
    except (asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError):
        row = None
    except Unavailable as error:
        log.warning("whether this code fits the schema is not known: %s", error)
        return
    _checked(None if row is None else (row["revision"], row["compatible_from"]), code or shipped())


def _checked(row: tuple[str, str] | None, code: str) -> str:
    if row is None or row[0] < code:
        found = row[0] if row else "before 0005"
        raise IncompatibleSchema(f"the schema is {found}, this code needs {code}: run `brain db upgrade` first")
    revision, oldest = row
    if code < oldest:
        raise IncompatibleSchema(f"the schema is {revision} and needs code of {oldest} or later; this code is {code}")
    return revision
