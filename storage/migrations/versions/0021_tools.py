"""Servers of tools, consents to them, and the calls that turns make."""

from pathlib import Path

from alembic import op

revision = "0021"
down_revision = "0019"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
FITS = (
    "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
    " LANGUAGE sql IMMUTABLE AS $$ SELECT '{}', '0004' $$"
)


def upgrade() -> None:
    op.execute((SQL / "0021_tools.sql").read_text())
    op.execute(FITS.format(revision))


def downgrade() -> None:
    """Servers and consents are forgotten; what turns have called stays told in their traces."""
    op.execute("DROP FUNCTION brain.plan_tool_calls, brain.start_tool_calls, brain.end_tool_call")
    op.execute("DROP TABLE brain.tool_calls, brain.tool_consents, brain.tool_servers")
    op.execute(FITS.format(down_revision))
