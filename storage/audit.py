"""The audit log: who changed what of access, settings, users and data, in the transaction that changed it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from domain.audit import AuditEntry
from domain.ids import new_id
from domain.tenant import Caller
from storage.pages import Page, PageQuery, page_of
from storage.postgres import Connection, Pool, reading
from storage.retry import again


async def record(
    connection: Connection,
    caller: Caller,
    action: str,
    subject: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """A row in the log of `caller.tenant`, which must be the tenant of the transaction. `detail` holds no secret."""
    actor = {"key_id": caller.key_id, "user": caller.user, "role": caller.role}
    await connection.execute(
        "INSERT INTO brain.audit (tenant_id, id, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5, $6)",
        caller.tenant,
        new_id("aud"),
        actor,
        action,
        subject,
        dict(detail or {}),
    )


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries are asked for: of this action, of this subject, from `since` on, up to before `until`."""

    action: str | None = None
    subject: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class PostgresAudit:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @again
    async def page(self, tenant: str, query: PageQuery, wanted: AuditFilter) -> Page[AuditEntry]:
        """Entries of a tenant, which need not be there any more. Raises `Unavailable`."""
        compare, direction = ("<", "DESC") if query.descending else (">", "ASC")
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch(
                "SELECT * FROM brain.audit WHERE tenant_id = $1"
                f" AND ($2::text IS NULL OR id {compare} $2) AND ($3::text IS NULL OR action = $3)"
                " AND ($4::text IS NULL OR subject = $4) AND ($5::timestamptz IS NULL OR at >= $5)"
                f" AND ($6::timestamptz IS NULL OR at < $6) ORDER BY id {direction} LIMIT $7",
                tenant,
                query.after,
                wanted.action,
                wanted.subject,
                wanted.since,
                wanted.until,
                query.limit + 1,
            )
        return page_of([AuditEntry.model_validate(dict(row)) for row in rows], query)
