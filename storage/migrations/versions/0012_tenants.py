"""Tenants that are deleted whole, keys that others replace, conversations past their time, figures of the service."""

from pathlib import Path

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
FITS = (
    "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
    " LANGUAGE sql IMMUTABLE AS $$ SELECT '{}', '0004' $$"
)


def upgrade() -> None:
    op.execute((SQL / "0012_tenants.sql").read_text())
    op.execute(FITS.format(revision))


def downgrade() -> None:
    op.execute(
        "DROP FUNCTION brain.replace_key, brain.clear_tenant, brain.expired_conversations, brain.platform_figures,"
        " brain.counted"
    )
    op.execute("DROP POLICY erase ON brain.usage")
    op.execute("REVOKE DELETE ON brain.usage FROM brain_definer")
    op.execute("REVOKE INSERT ON brain.outbox FROM brain_definer")
    op.execute("ALTER TABLE brain.api_keys DROP COLUMN replaced_by")
    op.execute(FITS.format(down_revision))
