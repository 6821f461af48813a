"""The ledger by call, budgets and reservations, tenants' settings for models, answers made anew."""

import re
from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
CHANGED = ("activate", "accept_turn", "next_attempt", "finish_turn", "delete_conversation")


def upgrade() -> None:
    op.execute((SQL / "0002_ledger.sql").read_text())
    op.execute((SQL / "0002_functions.sql").read_text())


def downgrade() -> None:
    op.execute((SQL / "0002_downgrade.sql").read_text())
    first = (SQL / "0001_functions.sql").read_text()
    for name in CHANGED:
        found = re.search(rf"^CREATE FUNCTION (brain\.{name}\(.*?^END \$\$;)", first, re.DOTALL | re.MULTILINE)
        assert found is not None
        op.execute(f"CREATE OR REPLACE FUNCTION {found[1]}")
        op.execute(
            f"REVOKE ALL ON FUNCTION brain.{name} FROM PUBLIC; GRANT EXECUTE ON FUNCTION brain.{name} TO brain_app"
        )
