"""Consumers of the outbox with claims, spaces of vectors, search by words."""

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
FITS = (
    "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
    " LANGUAGE sql IMMUTABLE AS $$ SELECT '{}', '0004' $$"
)
FUNCTIONS = (
    "claim_outbox, brain.confirm_outbox, brain.fail_outbox, brain.release_outbox, brain.outbox_lag, brain.create_space,"
    " brain.fill_space, brain.finish_space, brain.retire_space, brain.forget_space, brain.messages_after,"
    " brain.count_messages_after, brain.search_words"
)


def upgrade() -> None:
    op.execute((SQL / "0008_memory.sql").read_text())
    op.execute(FITS.format(revision))


def downgrade() -> None:
    """The spaces are forgotten, and with them what they hold: remove the vectors' folder too."""
    op.execute("DROP INDEX IF EXISTS brain.messages_words, brain.outbox_of_indexer")
    op.execute("DROP TRIGGER tell_deleted ON brain.tenants")
    op.execute(f"DROP FUNCTION brain.{FUNCTIONS}, brain.words, brain.tell_deleted_tenant")
    op.execute("DROP TABLE brain.outbox_claims, brain.outbox_set_aside, brain.vector_spaces")
    op.execute("DROP POLICY search ON brain.messages")
    op.execute("REVOKE SELECT ON brain.messages FROM brain_definer")
    op.execute("REVOKE UPDATE (confirmed) ON brain.outbox FROM brain_definer")
    op.execute("REVOKE INSERT, UPDATE, DELETE ON brain.outbox_consumers FROM brain_definer")
    op.execute("DELETE FROM brain.outbox_consumers WHERE name IN ('indexer', 'reindex')")
    op.execute("ALTER TABLE brain.outbox_consumers DROP COLUMN generation")
    op.execute(FITS.format(down_revision))
