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
    op.execute(FITS.format(down_revision))
