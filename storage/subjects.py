"""Whom an access token names: a user or an OAuth client, as it is now."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.postgres import Pool, reading
from storage.retry import again

_ROLE = "LEFT JOIN brain.roles r ON r.tenant_id = s.tenant_id AND r.name = "
_FROM = "nullif(s.tokens_from, '-infinity') AS tokens_from"
_TENANT = " JOIN brain.tenants t ON t.id = s.tenant_id AND t.status = 'active'"


@dataclass(frozen=True, slots=True)
class Subject:
    """`custom`: the permissions of a role that is the tenant's own. `tokens_from`: those made before are refused.
    `scopes`: beyond which an OAuth client never reaches."""

    role: str
    custom: tuple[str, ...] | None = None
    user: str | None = None
    tokens_from: datetime | None = None
    scopes: tuple[str, ...] | None = None


class PostgresSubjects:
    """Every method may raise `Unavailable`; None where whom it names does not count, or its tenant does not."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @again
    async def user(self, tenant: str, user_id: str) -> Subject | None:
        async with reading(self._pool, tenant) as lent:
            row = await lent.fetchrow(
                f"SELECT s.id, s.role, {_FROM}, r.permissions FROM brain.users s {_ROLE} s.role {_TENANT}"
                " WHERE s.tenant_id = $1 AND s.id = $2 AND s.status = 'active'",
                tenant,
                user_id,
            )
        return _subject(row)

    @again
    async def client(self, tenant: str, client_id: str) -> Subject | None:
        async with reading(self._pool, tenant) as lent:
            row = await lent.fetchrow(
                f"SELECT s.role, s.scopes, r.permissions FROM brain.clients s {_ROLE} s.role {_TENANT}"
                " WHERE s.tenant_id = $1 AND s.id = $2",
                tenant,
                client_id,
            )
        return None if row is None else Subject(row["role"], _tuple(row["permissions"]), scopes=_tuple(row["scopes"]))

    @again
    async def outside(
        self, tenant: str, issuer: str, subject: str, new_id: str, email: str, name: str | None, role: str
    ) -> Subject | None:
        """A user whom an outside provider names, kept here from the first token on, with the role that it gives now.

        `email` is shown, and signs nobody in: an address that a local user has is no way to that user.
        """
        async with reading(self._pool, tenant) as lent:
            if not await lent.fetchval("SELECT EXISTS (SELECT FROM brain.tenants WHERE id = $1)", tenant):
                return None
            await lent.execute(
                "INSERT INTO brain.users (tenant_id, id, email, email_key, name, role, issuer, subject)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
                tenant,
                new_id,
                email,
                f"outside {issuer} {subject}",
                name,
                role,
                issuer,
                subject,
            )
            await lent.execute(
                "UPDATE brain.users SET role = $4, updated_at = clock_timestamp()"
                " WHERE tenant_id = $1 AND issuer = $2 AND subject = $3 AND role <> $4",
                tenant,
                issuer,
                subject,
                role,
            )
            row = await lent.fetchrow(
                f"SELECT s.id, s.role, {_FROM}, r.permissions FROM brain.users s {_ROLE} s.role {_TENANT}"
                " WHERE s.tenant_id = $1 AND s.issuer = $2 AND s.subject = $3 AND s.status = 'active'",
                tenant,
                issuer,
                subject,
            )
        return _subject(row)


def _subject(row: Any) -> Subject | None:
    if row is None:
        return None
    return Subject(row["role"], _tuple(row["permissions"]), row["id"], row["tokens_from"])


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
