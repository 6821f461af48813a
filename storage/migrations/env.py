"""Alembic's environment; the URL, or a connection in a transaction, comes from the caller (`storage.migrations`)."""

from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from storage.migrations import LOCK, transaction

config = context.config
options: dict[str, Any] = {"version_table": "brain_schema_version"}


def migrate(connection: Connection) -> None:
    connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))  # one migration at a time
    context.configure(connection=connection, **options)
    context.run_migrations()


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()
elif (given := config.attributes.get("connection")) is not None:
    migrate(given)
else:
    with transaction(config.attributes["url"]) as connection:
        migrate(connection)
