"""Whether this code may run on a schema: the newest migration it ships, and the oldest code the schema allows."""

import logging
from pathlib import Path

import asyncpg
import psycopg

from domain.errors import Unavailable
from storage.postgres import Pool, asking

log = logging.getLogger("brain.storage")
MIGRATIONS = Path(__file__).parent / "migrations" / "versions"
SQL = "SELECT revision, compatible_from FROM brain.schema_compatibility()"


class IncompatibleSchema(Exception):
    """This code must not run on the schema; the message says what to do."""


def shipped() -> str:
    """The newest migration of this code, by the files' names: replicas need not load Alembic for it."""
    return max(path.name.partition("_")[0] for path in MIGRATIONS.glob("[0-9]*.py"))


def check_schema(admin_url: str, code: str | None = None) -> str:
    """The schema's revision, if code whose newest migration is `code` (this code's) may run on it.

    Raises `IncompatibleSchema`, and psycopg's errors where the database cannot be reached.
    """
    with psycopg.connect(admin_url) as found:
        try:
            row = found.execute(SQL).fetchone()
        except (psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName):
            row = None  # older than the function
    return _fits(row, code or shipped())


async def check_pool(pool: Pool, code: str | None = None) -> None:
    """As `check_schema`, with the rights of the service. A database that is away now is not judged."""
    try:
        async with asking(pool) as lease:
            row = await lease.fetchrow(SQL)
    except (asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError):
        row = None
    except Unavailable as error:
        log.warning("whether this code fits the schema is not known: %s", error)
        return
    _fits(None if row is None else (row["revision"], row["compatible_from"]), code or shipped())


def _fits(row: tuple[str, str] | None, code: str) -> str:
    if row is None or row[0] < code:
        found = row[0] if row else "before 0005"
        raise IncompatibleSchema(f"the schema is {found}, this code needs {code}: run `brain db upgrade` first")
    revision, oldest = row
    if code < oldest:
        raise IncompatibleSchema(f"the schema is {revision} and needs code of {oldest} or later; this code is {code}")
    return revision
