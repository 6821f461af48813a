"""Deliveries know for how long the service itself was away: the day of retries does not go on meanwhile."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

FITS = (
    "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
    " LANGUAGE sql IMMUTABLE AS $$ SELECT '{}', '0004' $$"
)


def upgrade() -> None:
    """Code of before counts on from the first attempt."""
    op.execute("ALTER TABLE brain.deliveries ADD COLUMN away interval NOT NULL DEFAULT '0'")
    op.execute(FITS.format(revision))


def downgrade() -> None:
    op.execute("ALTER TABLE brain.deliveries DROP COLUMN away")
    op.execute(FITS.format(down_revision))
