"""A flush of a cache is told to all replicas."""

from pathlib import Path

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
FITS = (
    "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
    " LANGUAGE sql IMMUTABLE AS $$ SELECT '{}', '0004' $$"
)


def upgrade() -> None:
    op.execute((SQL / "0014_caches.sql").read_text())
    op.execute(FITS.format(revision))


def downgrade() -> None:
    op.execute("DELETE FROM brain.access_changes WHERE kind = 'cache'")
    op.execute("ALTER TABLE brain.access_changes DROP CONSTRAINT access_changes_kind_check")
    op.execute(
        "ALTER TABLE brain.access_changes ADD CONSTRAINT access_changes_kind_check"
        " CHECK (kind IN ('tenant', 'key', 'user', 'role', 'token', 'signing'))"
    )
    op.execute(FITS.format(down_revision))
