"""Events that leave the service: the relay, its topics, and what rows of the outbox tell besides."""

import re
from pathlib import Path

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
CHANGED = {"confirm_outbox": "0010_words", "erase_events": "0015_privacy"}
"""Functions, and where they stand as they were."""
FLAGS = re.DOTALL | re.MULTILINE
FITS = (
    "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
    " LANGUAGE sql IMMUTABLE AS $$ SELECT '{}', '0004' $$"
)


def upgrade() -> None:
    op.execute((SQL / "0018_events.sql").read_text())
    op.execute(FITS.format(revision))


def downgrade() -> None:
    """Topics are forgotten, and rows that were not published are told to nobody."""
    op.execute("DROP INDEX IF EXISTS brain.outbox_of_relay")
    for name, file in CHANGED.items():
        before = (SQL / f"{file}.sql").read_text()
        found = re.search(rf"^CREATE (?:OR REPLACE )?FUNCTION (brain\.{name}\(.*?^END \$\$;)", before, FLAGS)
        assert found is not None
        op.execute(f"CREATE OR REPLACE FUNCTION {found[1]}")
    op.execute("DROP TRIGGER tell_turn ON brain.outbox")
    op.execute(
        "DROP FUNCTION brain.relay_lease, brain.relay_release, brain.relay_take, brain.relay_lost, brain.relay_again,"
        " brain.relay_lag, brain.events_kept, brain.tell_turn, brain.tell_limit, brain.tell_embedded"
    )
    op.execute("DROP TABLE brain.relays, brain.event_topics, brain.limits_told")
    op.execute("DELETE FROM brain.outbox_consumers WHERE name = 'relay'")
    op.execute(FITS.format(down_revision))
