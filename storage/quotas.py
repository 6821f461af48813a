"""How many of a thing a tenant may have: looked at in the transaction that adds one, one at a time."""

from domain.errors import QuotaExceeded
from domain.keys import MOST_KEYS
from storage.postgres import Connection

ACTIVE_KEYS = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp()) AND role <> 'operator'"


async def check_keys(connection: Connection, tenant: str) -> None:
    """Raises `QuotaExceeded` where there is no room for another key; those that have ended take none."""
    await _check(connection, tenant, "keys", f"brain.api_keys WHERE tenant_id = $1 AND {ACTIVE_KEYS}", MOST_KEYS)


async def check_users(connection: Connection, tenant: str) -> None:
    """Raises `QuotaExceeded` where there is no room for another user."""
    await _check(connection, tenant, "users", "brain.users WHERE tenant_id = $1", None)


async def _check(connection: Connection, tenant: str, what: str, counted: str, most: int | None) -> None:
    quota = await connection.fetchval(
        "SELECT (settings->'quotas'->>$2)::bigint FROM brain.tenants WHERE id = $1", tenant, f"max_{what}"
    )
    most = most if quota is None else quota
    if most is None:
        return
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"{what} {tenant}")
    count = await connection.fetchval(f"SELECT count(*) FROM (SELECT FROM {counted} LIMIT $2) c", tenant, most)
    if count >= most:
        raise QuotaExceeded(f"this tenant may have {most} {what}")
