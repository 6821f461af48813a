"""Services that tenants' products come from."""

from pathlib import Path

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
FITS = (
    "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
    " LANGUAGE sql IMMUTABLE AS $$ SELECT '{}', '0004' $$"
)


def upgrade() -> None:
    op.execute((SQL / "0017_catalogue_sources.sql").read_text())
    op.execute(FITS.format(revision))


def downgrade() -> None:
    """Sources are forgotten: every tenant has the built-in catalogue again."""
    op.execute("DROP TABLE brain.catalogue_sources")
    op.execute("DELETE FROM brain.access_changes WHERE kind = 'catalogue'")
    op.execute("ALTER TABLE brain.access_changes DROP CONSTRAINT access_changes_kind_check")
    op.execute(
        "ALTER TABLE brain.access_changes ADD CONSTRAINT access_changes_kind_check"
        " CHECK (kind IN ('tenant', 'key', 'user', 'role', 'token', 'signing', 'cache'))"
    )
    op.execute(FITS.format(down_revision))
