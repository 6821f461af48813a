"""Tenants' intents, their trained heads, and trainings as jobs."""

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    op.execute((SQL / "0006_intents.sql").read_text())


def downgrade() -> None:
    """Intents and heads go; what messages were taken to mean stays."""
    op.execute("DROP INDEX IF EXISTS brain.turns_by_intent")
    op.execute("DROP FUNCTION brain.claim_intent_training, brain.active_intent_heads, brain.turns_by_intent")
    op.execute("DROP TABLE brain.intents, brain.intent_trainings, brain.intent_heads")
    op.execute(
        "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
        " LANGUAGE sql IMMUTABLE AS $$ SELECT '0005', '0004' $$"
    )
