"""Tenants, keys, conversations, messages, turns, idempotency, usage, outbox, hosts."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    op.execute((SQL / "0001_initial.sql").read_text())
    op.execute((SQL / "0001_functions.sql").read_text())


def downgrade() -> None:
    """Everything of the service goes. The roles stay: another database of the server may use them."""
    op.execute("DROP SCHEMA brain CASCADE")
