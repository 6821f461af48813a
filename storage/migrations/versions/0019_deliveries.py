"""Webhooks, channels, and what is delivered to them."""

from pathlib import Path

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
FITS = (
    "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
    " LANGUAGE sql IMMUTABLE AS $$ SELECT '{}', '0004' $$"
)


def upgrade() -> None:
    op.execute((SQL / "0019_deliveries.sql").read_text())
    op.execute(FITS.format(revision))


def downgrade() -> None:
    """Webhooks, channels and what waits for them are forgotten; conversations stay."""
    op.execute(
        "DROP FUNCTION brain.find_channel, brain.active_channels, brain.outbox_tenants, brain.take_outbox,"
        " brain.settle_outbox, brain.claim_lanes, brain.prune_deliveries, brain.deliveries_lag"
    )
    op.execute(
        "DROP TABLE brain.deliveries, brain.delivery_lanes, brain.channel_messages, brain.channel_bindings,"
        " brain.channels, brain.webhooks"
    )
    op.execute("DROP INDEX IF EXISTS brain.outbox_of_deliveries")
    op.execute("DELETE FROM brain.outbox_set_aside WHERE consumer = 'deliveries'")
    op.execute("DELETE FROM brain.outbox_consumers WHERE name = 'deliveries'")
    op.execute(FITS.format(down_revision))
