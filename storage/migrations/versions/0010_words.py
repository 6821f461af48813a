"""Words of messages in a table of their own, which turns do not write."""

import re
from pathlib import Path

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
CHANGED = ("confirm_outbox", "fail_outbox", "search_words")


def upgrade() -> None:
    op.execute((SQL / "0010_words.sql").read_text())


def downgrade() -> None:
    """Words are looked up in the messages again; the index for it is built by the next upgrade of earlier code."""
    before = (SQL / "0008_memory.sql").read_text()
    for name in CHANGED:
        found = re.search(rf"^CREATE FUNCTION (brain\.{name}\(.*?^END \$\$;)", before, re.DOTALL | re.MULTILINE)
        assert found is not None
        op.execute(f"CREATE OR REPLACE FUNCTION {found[1]}")
    op.execute("DROP FUNCTION brain.told_messages, brain.keep_words, brain.waiting_words")
    op.execute("DROP TABLE brain.message_words")
    op.execute(
        "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
        " LANGUAGE sql IMMUTABLE AS $$ SELECT '0009', '0004' $$"
    )
