"""Turns keep their order when the database's clock is put back."""

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    op.execute((SQL / "0009_order.sql").read_text())


def downgrade() -> None:
    """The function stays: it does for code of before what its own did."""
    op.execute(
        "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
        " LANGUAGE sql IMMUTABLE AS $$ SELECT '0008', '0004' $$"
    )
