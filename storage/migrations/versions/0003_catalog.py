"""Providers registered at run time, and the versions of the catalog and of tenants' settings."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    op.execute((SQL / "0003_catalog.sql").read_text())


def downgrade() -> None:
    """What was registered at run time goes; tenants' settings stay."""
    op.execute("DROP TRIGGER raise_version ON brain.model_settings")
    op.execute("DROP POLICY changes ON brain.model_settings")
    op.execute("REVOKE SELECT ON brain.model_settings FROM brain_definer")
    op.execute("DROP FUNCTION brain.put_provider, brain.reset_provider, brain.model_settings_since")
    op.execute("ALTER TABLE brain.model_settings DROP COLUMN version")
    op.execute("DROP TABLE brain.providers, brain.catalog_version")
    op.execute("DROP FUNCTION brain.raise_version")
