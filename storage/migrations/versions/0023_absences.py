"""Deliveries know for how long the service itself was away: the day of retries does not go on meanwhile.

Of a subscriber: `tried_at`, about when anything was last tried at it, and `absent`, for how long in all nothing was
though something was due. Of a delivery: `absent_then`, the subscriber's `absent` when its last attempt began; `away`,
what of it does not count; `ours_since`, since when none of ours could try it; `unended`, the attempts in a row of which
nobody wrote down the end.
"""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

SUBSCRIBERS = ("webhooks", "channels")
FITS = (
    "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
    " LANGUAGE sql IMMUTABLE AS $$ SELECT '{}', '0004' $$"
)


def upgrade() -> None:
    """Code of before counts on from the first attempt, and does not tell that it tried."""
    op.execute(
        "ALTER TABLE brain.deliveries ADD COLUMN away interval NOT NULL DEFAULT '0', ADD COLUMN absent_then interval,"
        " ADD COLUMN ours_since timestamptz, ADD COLUMN unended integer NOT NULL DEFAULT 0"
    )
    for table in SUBSCRIBERS:
        op.execute(
            f"ALTER TABLE brain.{table} ADD COLUMN tried_at timestamptz,"
            " ADD COLUMN absent interval NOT NULL DEFAULT '0'"
        )
    op.execute(FITS.format(revision))


def downgrade() -> None:
    for table in SUBSCRIBERS:
        op.execute(f"ALTER TABLE brain.{table} DROP COLUMN tried_at, DROP COLUMN absent")
    op.execute(
        "ALTER TABLE brain.deliveries DROP COLUMN away, DROP COLUMN absent_then, DROP COLUMN ours_since,"
        " DROP COLUMN unended"
    )
    op.execute(FITS.format(down_revision))
