"""Tenants that change, keys with scopes, roles, users, sessions, signing keys, the audit log."""

from pathlib import Path

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

SQL = Path(__file__).parent.parent / "sql"
FITS = (
    "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
    " LANGUAGE sql IMMUTABLE AS $$ SELECT '{}', '0004' $$"
)
FUNCTIONS = (
    "access_changed, brain.access_since, brain.revoked_now, brain.prune_access, brain.find_key, brain.rehash_key,"
    " brain.list_tenants,"
    " brain.create_tenant, brain.change_tenant, brain.delete_tenant, brain.create_key, brain.end_key, brain.keys_used,"
    " brain.put_signing_key, brain.end_signing_key"
)


def upgrade() -> None:
    op.execute((SQL / "0011_access.sql").read_text())
    op.execute(FITS.format(revision))


def downgrade() -> None:
    """Users, roles and sessions go, and with them what only code from here on can tell of a key: keys that were
    narrowed by scopes or by an end are revoked, for code of before would let them do more."""
    op.execute(
        "UPDATE brain.api_keys SET revoked_at = coalesce(revoked_at, now())"
        " WHERE scopes IS NOT NULL OR expires_at IS NOT NULL OR user_id IS NOT NULL"
        " OR role NOT IN ('operator', 'admin', 'member')"
    )
    op.execute(f"DROP FUNCTION brain.{FUNCTIONS}")
    op.execute(
        "DROP TABLE brain.refresh_tokens, brain.sessions, brain.revoked_tokens, brain.roles, brain.users, brain.audit,"
        " brain.signing_keys, brain.access_version, brain.access_changes"
    )
    op.execute("DROP POLICY administer ON brain.tenants")
    op.execute("DROP POLICY administer ON brain.api_keys")
    op.execute("REVOKE INSERT, UPDATE, DELETE ON brain.tenants FROM brain_definer")
    op.execute("REVOKE INSERT, UPDATE ON brain.api_keys FROM brain_definer")
    op.execute(
        "ALTER TABLE brain.api_keys DROP COLUMN prefix, DROP COLUMN scopes, DROP COLUMN user_id,"
        " DROP COLUMN created_by, DROP COLUMN expires_at, DROP COLUMN last_used_at"
    )
    op.execute("ALTER TABLE brain.tenants DROP COLUMN updated_at")
    op.execute(FITS.format(down_revision))
