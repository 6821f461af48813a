"""Alembic's environment; the URL comes from the caller (`storage.migrations`)."""

from typing import Any

from alembic import context
from sqlalchemy import create_engine, pool, text

config = context.config
options: dict[str, Any] = {"version_table": "brain_schema_version", "transaction_per_migration": True}

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = create_engine(config.attributes["url"], poolclass=pool.NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(7214)"))  # one migration at a time
        connection.commit()
        context.configure(connection=connection, **options)
        with context.begin_transaction():
            context.run_migrations()
        connection.execute(text("SELECT pg_advisory_unlock(7214)"))
        connection.commit()
