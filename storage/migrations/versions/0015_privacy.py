"""Erasure jobs, keys of receipts, row-level security on what changed of access."""

from pathlib import Path

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
FITS = (
    "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
    " LANGUAGE sql IMMUTABLE AS $$ SELECT '{}', '0004' $$"
)


def upgrade() -> None:
    op.execute((SQL / "0015_privacy.sql").read_text())
    op.execute(FITS.format(revision))


def downgrade() -> None:
    """Erasures that were not done are forgotten: ask for them again. Keys sealed in the database count no more there:
    code of before leaves such providers out."""
    op.execute("DROP FUNCTION brain.erase_events, brain.unlink_usage, brain.erase_user_keys")
    op.execute("DROP TABLE brain.erasure_steps, brain.erasures, brain.receipt_keys")
    op.execute("DROP POLICY work ON brain.access_changes")
    op.execute("DROP POLICY administration ON brain.access_changes")
    op.execute("ALTER TABLE brain.access_changes NO FORCE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE brain.access_changes DISABLE ROW LEVEL SECURITY")
    op.execute("DROP POLICY unlink ON brain.usage")
    op.execute("REVOKE UPDATE (user_id, caller, conversation_id) ON brain.usage FROM brain_definer")
    op.execute("REVOKE DELETE ON brain.api_keys FROM brain_definer")
    op.execute("REVOKE INSERT ON brain.outbox FROM brain_definer")
    op.execute(FITS.format(down_revision))
