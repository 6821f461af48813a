"""Work in the background: messages' words, a way past a consumer of the outbox, trainings by turns of tenants."""

import re
from pathlib import Path

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
CHANGED = {
    "claim_intent_training": "0006_intents",
    "confirm_outbox": "0008_memory",
    "fail_outbox": "0008_memory",
    "search_words": "0008_memory",
}
"""Functions, and where they stand as they were."""


def upgrade() -> None:
    op.execute((SQL / "0010_words.sql").read_text())
    op.execute((SQL / "0010_outbox.sql").read_text())
    op.execute((SQL / "0010_trainings.sql").read_text())


def downgrade() -> None:
    """Words are looked up in the messages again; the index for it is built by the next upgrade of earlier code."""
    for name, file in CHANGED.items():
        before = (SQL / f"{file}.sql").read_text()
        found = re.search(rf"^CREATE FUNCTION (brain\.{name}\(.*?^END \$\$;)", before, re.DOTALL | re.MULTILINE)
        assert found is not None
        op.execute(f"CREATE OR REPLACE FUNCTION {found[1]}")
    op.execute("DROP FUNCTION brain.outbox_size, brain.skip_outbox")
    op.execute("DROP FUNCTION brain.told_messages, brain.keep_words, brain.waiting_words")
    op.execute("DROP TABLE brain.message_words")
    op.execute(
        "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
        " LANGUAGE sql IMMUTABLE AS $$ SELECT '0009', '0004' $$"
    )
