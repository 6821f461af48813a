"""The schema's versions (Alembic). `url` is a `postgresql://` URL of a role that may create roles and a schema."""

import io
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

LATEST = "head"


def upgrade(url: str, revision: str = LATEST) -> None:
    """Bring the schema to `revision`; nothing happens if it is there. Safe to run from several places at once."""
    command.upgrade(_config(url), revision)


def downgrade(url: str, revision: str) -> None:
    """Take the schema back to `revision` (`base` removes it with all data)."""
    command.downgrade(_config(url), revision)


def newest() -> str:
    """The newest revision that this code ships."""
    head: str | None = ScriptDirectory.from_config(_config("postgresql://")).get_current_head()
    assert head is not None
    return head


def offline_sql(revision: str = LATEST) -> str:
    """The SQL that `upgrade` would run on an empty database, for review or for a database that only SQL reaches."""
    out = io.StringIO()
    config = _config("postgresql://", out)
    command.upgrade(config, revision, sql=True)
    return out.getvalue()


def _config(url: str, out: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=out) if out is not None else Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            url = "postgresql+psycopg://" + url[len(scheme) :]
    config.attributes["url"] = url
    return config
