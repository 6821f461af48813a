"""The schema's versions (Alembic). `url` is a `postgresql://` URL of a role that may create roles and a schema."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, pool

from storage.migrations import indexes

LATEST = "head"
LOCK = 7214  # the advisory lock of a transaction that changes the schema


def upgrade(url: str, revision: str = LATEST) -> None:
    """Bring the schema to `revision`; nothing happens if it is there. Safe to run from several places at once."""
    command.upgrade(_config(url), revision)
    indexes.build(url)


def upgrade_within(connection: Connection, revision: str = LATEST) -> None:
    """The same as a part of a `transaction` that goes on."""
    config = _config("postgresql://")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


@contextmanager
def transaction(url: str) -> Iterator[Connection]:
    """One transaction, also of several versions: all of them or none, and it passes a pooler in transaction mode."""
    engine = create_engine(_driver(url), poolclass=pool.NullPool, connect_args={"prepare_threshold": None})
    with engine.begin() as connection:
        yield connection


def downgrade(url: str, revision: str) -> None:
    """Take the schema back to `revision` (`base` removes it with all data)."""
    command.downgrade(_config(url), revision)


def newest() -> str:
    """The newest revision that this code ships."""
    return revisions()[-1]


def revisions() -> list[str]:
    """Those that this code ships, the oldest first."""
    script = ScriptDirectory.from_config(_config("postgresql://"))
    return [found.revision for found in script.walk_revisions()][::-1]


def offline_sql(revision: str = LATEST) -> str:
    """The SQL that `upgrade` would run on an empty database, for review or for a database that only SQL reaches."""
    out = io.StringIO()
    config = _config("postgresql://", out)
    command.upgrade(config, revision, sql=True)
    return out.getvalue() + (indexes.offline() if revision in (LATEST, newest()) else "")


def _config(url: str, out: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=out) if out is not None else Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    return config


def _driver(url: str) -> str:
    """The URL as SQLAlchemy wants it."""
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return "postgresql+psycopg://" + url[len(scheme) :]
    return url
