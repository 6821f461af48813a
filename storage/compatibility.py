"""Whether this code may run on a schema: the newest migration it ships, and the oldest code the schema allows."""

import psycopg

from storage.migrations import newest


class IncompatibleSchema(Exception):
    """This code must not run on the schema; the message says what to do."""


def check_schema(admin_url: str, code: str | None = None) -> str:
    """The schema's revision, if code whose newest migration is `code` (this code's) may run on it.

    Raises `IncompatibleSchema`, and psycopg's errors where the database cannot be reached.
    """
    code = code or newest()
    with psycopg.connect(admin_url) as connection:
        try:
            row = connection.execute("SELECT revision, compatible_from FROM brain.schema_compatibility()").fetchone()
        except (psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName):
            row = None  # older than the function
    if row is None or row[0] < code:
        found = row[0] if row else "before 0005"
        raise IncompatibleSchema(f"the schema is {found}, this code needs {code}: run `brain db upgrade` first")
    revision, oldest = row
    if code < oldest:
        raise IncompatibleSchema(f"the schema is {revision} and needs code of {oldest} or later; this code is {code}")
    return str(revision)
