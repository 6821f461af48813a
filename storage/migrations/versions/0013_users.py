"""OAuth clients and codes, and system messages that an agent puts into a conversation."""

from pathlib import Path

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
FITS = (
    "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
    " LANGUAGE sql IMMUTABLE AS $$ SELECT '{}', '0004' $$"
)


def upgrade() -> None:
    op.execute((SQL / "0013_users.sql").read_text())
    op.execute(FITS.format(revision))


def downgrade() -> None:
    """Clients go, and with them their users' sign-ins through them; messages of agents stay."""
    op.execute("DROP FUNCTION brain.find_client, brain.append_system_message")
    op.execute("DROP INDEX brain.refresh_tokens_of_session")
    op.execute("DROP TABLE brain.auth_codes, brain.clients")
    op.execute("DELETE FROM brain.sessions WHERE client_id IS NOT NULL")
    op.execute(FITS.format(down_revision))
