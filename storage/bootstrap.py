"""The first tenant and its operator's key."""

import psycopg

from domain.ids import new_id
from storage.access import key_hash, shown


def bootstrap(admin_url: str, api_key: str, tenant_name: str = "default", pepper: bytes = b"") -> tuple[str, str]:
    """Make sure that the operator's tenant exists and that `api_key` opens it; gives (tenant_id, key_id).

    An operator's key of an earlier start with another value is revoked. `pepper`: see `key_hash`.
    """
    digest = key_hash(api_key, pepper)
    with psycopg.connect(admin_url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(7215)")
        row = connection.execute(
            "SELECT id FROM brain.tenants WHERE settings ? 'operator' ORDER BY created_at LIMIT 1"
        ).fetchone()
        tenant = row[0] if row else new_id("ten")
        if row is None:
            connection.execute(
                "INSERT INTO brain.tenants (id, name, settings) VALUES (%s, %s, '{\"operator\": true}')",
                (tenant, tenant_name),
            )
        found = connection.execute(
            "SELECT id FROM brain.api_keys WHERE hash = %s AND tenant_id = %s", (digest, tenant)
        ).fetchone()
        key = found[0] if found else new_id("key")
        connection.execute(
            "UPDATE brain.api_keys SET revoked_at = now() WHERE tenant_id = %s AND name = 'operator'"
            " AND id <> %s AND revoked_at IS NULL",
            (tenant, key),
        )
        if found:
            connection.execute(
                "UPDATE brain.api_keys SET revoked_at = NULL WHERE tenant_id = %s AND id = %s", (tenant, key)
            )
        else:
            connection.execute(
                "INSERT INTO brain.api_keys (tenant_id, id, name, hash, prefix, role)"
                " VALUES (%s, %s, 'operator', %s, %s, 'operator')",
                (tenant, key, digest, shown(api_key)),
            )
        return tenant, key
