"""The schema says which code may run on it."""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    op.execute((SQL / "0005_compatibility.sql").read_text())


def downgrade() -> None:
    op.execute("DROP FUNCTION brain.schema_compatibility()")
