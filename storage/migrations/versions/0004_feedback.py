"""Feedback on answers, and complexity scorers trained from it."""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    op.execute((SQL / "0004_feedback.sql").read_text())


def downgrade() -> None:
    op.execute("DROP TABLE brain.feedback, brain.complexity_scorers")
