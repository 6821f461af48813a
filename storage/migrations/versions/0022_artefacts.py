"""Artefacts of heads may be larger: tuned layers take 11 MB, and 15,000 examples 20 MB."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

LIMIT = "ALTER TABLE brain.intent_heads ADD CONSTRAINT intent_heads_artefact_check CHECK (octet_length(artefact) <= {})"
FITS = (
    "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
    " LANGUAGE sql IMMUTABLE AS $$ SELECT '{}', '0004' $$"
)


def upgrade() -> None:
    op.execute("ALTER TABLE brain.intent_heads DROP CONSTRAINT intent_heads_artefact_check")
    op.execute(LIMIT.format(64 * 1024 * 1024))
    op.execute(FITS.format(revision))


def downgrade() -> None:
    """Larger heads are forgotten: train them again."""
    op.execute("DELETE FROM brain.intent_heads WHERE octet_length(artefact) > 16777216")
    op.execute("ALTER TABLE brain.intent_heads DROP CONSTRAINT intent_heads_artefact_check")
    op.execute(LIMIT.format(16 * 1024 * 1024))
    op.execute(FITS.format(down_revision))
