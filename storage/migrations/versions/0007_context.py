"""Summaries of conversations, and facts about their users."""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    op.execute((SQL / "0007_context.sql").read_text())


def downgrade() -> None:
    """Summaries go; they can be made anew of the messages."""
    op.execute("DROP TRIGGER forget_summaries ON brain.messages")
    op.execute("DROP FUNCTION brain.forget_summaries, brain.keep_summary, brain.summary_of")
    op.execute("DROP TABLE brain.summaries")
    op.execute(
        "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
        " LANGUAGE sql IMMUTABLE AS $$ SELECT '0006', '0004' $$"
    )
