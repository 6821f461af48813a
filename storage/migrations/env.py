"""Alembic's environment; the URL comes from the caller (`storage.migrations`)."""

from typing import Any

from alembic import context
from sqlalchemy import create_engine, pool, text

config = context.config
options: dict[str, Any] = {"version_table": "brain_schema_version"}

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    # One transaction, also of several versions: all of them or none, and it passes a pooler in transaction mode.
    engine = create_engine(config.attributes["url"], poolclass=pool.NullPool, connect_args={"prepare_threshold": None})
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(7214)"))  # one migration at a time
        context.configure(connection=connection, **options)
        context.run_migrations()
