"""Releases of the service's code: copies of the source, each in a folder of its own, changed where a test wants it."""

from dataclasses import dataclass
from pathlib import Path

from tests.source_copy import copy_source, edit

SEND, CONTENT = "    reserve: Decimal | None = None\n", "content=body.content,\n"
INSERT = "(tenant_id, id, user_id, title, metadata, system_prompt)"
VALUES = "VALUES ($1, $2, $3, $4, $5, $6)"
EXPANSION, CONTRACTION = "0901", "0902"
OLDEST = "0004"  # code that the present schema allows
MIGRATION = '''\
"""{title}"""

from alembic import op

revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None

FITS = (
    "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
    " LANGUAGE sql IMMUTABLE AS $$ SELECT '{{}}', '{{}}' $$"
)


def upgrade() -> None:
    op.execute("{up}")
    op.execute(FITS.format("{revision}", "{oldest}"))


def downgrade() -> None:
    op.execute("{down}")
    op.execute(FITS.format("{before}", "{oldest_before}"))
'''


@dataclass(frozen=True, slots=True)
class Release:
    """`version`: what its code says of itself at /health. `tree`: the folder of the source."""

    version: str
    tree: Path

    @property
    def runtime_env(self) -> dict[str, list[str]]:
        """Of an application of Serve that runs this code: the folder is there on every node."""
        return {"py_modules": [f"local://{self.tree}"]}


def release(folder: Path, version: str) -> Release:
    """The present code under another version, as `pip install --no-deps --target` would lay it down.

    Its ingresses say one thing more to hosts than those before.
    """
    tree = folder / f"release-{version}"
    copy_source(tree)
    edit(tree / "domain" / "commands.py", SEND, f"{SEND}    release: str | None = None\n")
    edit(tree / "serve_app" / "ingress" / "sends.py", CONTENT, f'{CONTENT}        release="{version}",\n')
    metadata = tree / f"chat_brain-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: chat-brain\nVersion: {version}\n")
    return Release(version, tree)


def expanded(folder: Path, version: str, before: str) -> Release:
    """Code that writes a new column, with the migration that adds it, on which the code before runs too.

    `before`: the newest migration of the present code.
    """
    made = release(folder, version)
    creation = made.tree / "storage" / "creation.py"
    edit(creation, INSERT, INSERT.replace(")", ", made_by)"))
    edit(creation, VALUES, VALUES.replace(")", f", '{version}')"))
    up = "ALTER TABLE brain.conversations ADD COLUMN made_by text DEFAULT 'before'"
    down = "ALTER TABLE brain.conversations DROP COLUMN made_by"
    _migrate(made, "Expand.", EXPANSION, before, (before, OLDEST), up, down)
    return made


def contracted(folder: Path, version: str, before: str) -> Release:
    """As `expanded`, with one migration more, after which the code before that fails."""
    made = expanded(folder, version, before)
    up = "ALTER TABLE brain.conversations ALTER COLUMN made_by DROP DEFAULT, ALTER COLUMN made_by SET NOT NULL"
    down = (
        "ALTER TABLE brain.conversations ALTER COLUMN made_by DROP NOT NULL, ALTER COLUMN made_by SET DEFAULT 'before'"
    )
    _migrate(made, "Contract.", CONTRACTION, EXPANSION, (EXPANSION, before), up, down)
    return made


def _migrate(made: Release, title: str, revision: str, before: str, fits: tuple[str, str], up: str, down: str) -> None:
    """`fits`: the oldest code that runs on the new schema, and on the one before."""
    text = MIGRATION.format(
        title=title, revision=revision, before=before, oldest=fits[0], oldest_before=fits[1], up=up, down=down
    )
    (made.tree / "storage" / "migrations" / "versions" / f"{revision}_rollout.py").write_text(text)
