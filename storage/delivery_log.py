"""The log of what was delivered, and what is sent again or on trial."""

import uuid
from datetime import UTC, datetime
from typing import Any

from domain.channels import ChannelDisabled
from domain.cloud_events import CloudEvent
from domain.deliveries import DeliveryStatus
from domain.delivery_plan import Planned
from domain.errors import NotFound
from domain.subscribers import DeliveryEntry, WebhookDisabled
from domain.tenant import Caller
from storage.audit import record
from storage.fan_out import write
from storage.pages import Page, PageQuery, page_of
from storage.postgres import Connection, Pool, reading
from storage.retry import again
from storage.subscribers import WEBHOOKS, Table

TRIAL = "webhook.test"
_ENTRY = (
    "id, event_id, type, conversation_id, message_id, status, attempts, next_at AS next_attempt_at, http_status,"
    " answer, error, duration_ms, receipt, created_at, ended_at"
)


class PostgresDeliveryLog:
    """Of one kind of subscribers. Methods may raise `Unavailable`; `NotFound` where the tenant has no such thing."""

    def __init__(self, pool: Pool, table: Table[Any]) -> None:
        self._pool, self._table = pool, table

    @again
    async def page(
        self, tenant: str, subscriber: str, query: PageQuery, status: DeliveryStatus | None = None
    ) -> Page[DeliveryEntry]:
        compare, direction = ("<", "DESC") if query.descending else (">", "ASC")
        async with reading(self._pool, tenant) as lent:
            await self._check(lent, tenant, subscriber)
            rows = await lent.fetch(
                f"SELECT {_ENTRY} FROM brain.deliveries WHERE tenant_id = $1 AND subscriber = $2"
                f" AND ($4::text IS NULL OR id {compare} $4) AND ($5::text IS NULL OR status = $5)"
                f" ORDER BY id {direction} LIMIT $3",
                tenant,
                subscriber,
                query.limit + 1,
                query.after,
                status,
            )
        return page_of([DeliveryEntry.model_validate(dict(row)) for row in rows], query)

    @again
    async def one(self, tenant: str, subscriber: str, id: str) -> DeliveryEntry:
        async with reading(self._pool, tenant) as lent:
            return await self._entry(lent, tenant, subscriber, id)

    async def repeat(self, caller: Caller, subscriber: str, id: str) -> DeliveryEntry:
        """Put what was delivered, or given up, behind what waits for its subscriber: a delivery of its own, of the same
        event. Raises `WebhookDisabled`, `ChannelDisabled`."""
        async with reading(self._pool, caller.tenant) as lent:
            await self._check(lent, caller.tenant, subscriber, active=True)
            row = await lent.fetchrow(
                "SELECT stream, event_id, type, event, conversation_id, message_id FROM brain.deliveries"
                " WHERE tenant_id = $1 AND subscriber = $2 AND id = $3",
                caller.tenant,
                subscriber,
                id,
            )
            if row is None:
                raise NotFound("there is no such delivery")
            planned = self._planned(subscriber, **row)
            made = (await write(lent, caller.tenant, [planned]))[0]
            await record(lent, caller, f"{self._table.what}.redeliver", subscriber, {"delivery": id})
            return await self._entry(lent, caller.tenant, subscriber, made)

    async def trial(self, caller: Caller, webhook: str) -> DeliveryEntry:
        """Send a webhook an event of the type `webhook.test`. Raises `WebhookDisabled`."""
        id, now = f"evt_{uuid.uuid4().hex}", datetime.now(UTC)
        event = CloudEvent(id, TRIAL, caller.tenant, now, caller.tenant, webhook, {"webhook_id": webhook})
        async with reading(self._pool, caller.tenant) as lent:
            await self._check(lent, caller.tenant, webhook, active=True)
            planned = self._planned(webhook, TRIAL, id, TRIAL, event.json(), None, None)
            made = (await write(lent, caller.tenant, [planned]))[0]
            return await self._entry(lent, caller.tenant, webhook, made)

    @again
    async def figures(self, tenant: str, subscriber: str) -> dict[str, Any]:
        """How many deliveries wait, when the first of them is tried, when one was taken last, and what was wrong with
        the last that was not."""
        async with reading(self._pool, tenant) as lent:
            await self._check(lent, tenant, subscriber)
            row = await lent.fetchrow(
                "SELECT count(*) AS waiting, min(due) AS next_attempt_at FROM brain.delivery_lanes"
                " WHERE tenant_id = $1 AND subscriber = $2 AND due IS NOT NULL",
                tenant,
                subscriber,
            )
            heard = await lent.fetchval(
                f"SELECT heard_at FROM brain.{self._table.name} WHERE tenant_id = $1 AND id = $2", tenant, subscriber
            )
            error = await lent.fetchval(
                "SELECT error FROM brain.deliveries WHERE tenant_id = $1 AND subscriber = $2 AND error IS NOT NULL"
                " AND status IN ('waiting', 'failed') ORDER BY id DESC LIMIT 1",
                tenant,
                subscriber,
            )
        assert row is not None
        return {
            "conversations_waiting": row["waiting"],
            "next_attempt_at": row["next_attempt_at"],
            "heard_at": heard,
            "error": error,
        }

    def _planned(
        self,
        subscriber: str,
        stream: str,
        event_id: str,
        type: str,
        event: dict[str, Any],
        conversation_id: str | None,
        message_id: str | None,
    ) -> Planned:
        webhook, channel = (subscriber, None) if self._table is WEBHOOKS else (None, subscriber)
        return Planned(webhook, channel, stream, event_id, type, event, conversation_id, message_id)

    async def _check(self, lent: Connection, tenant: str, subscriber: str, active: bool = False) -> None:
        status = await lent.fetchval(
            f"SELECT status FROM brain.{self._table.name} WHERE tenant_id = $1 AND id = $2"
            f"{' FOR KEY SHARE' if active else ''}",
            tenant,
            subscriber,
        )
        if status is None:
            raise NotFound(f"there is no such {self._table.what}")
        if active and status != "active":
            raise WebhookDisabled() if self._table is WEBHOOKS else ChannelDisabled()

    async def _entry(self, lent: Connection, tenant: str, subscriber: str, id: str) -> DeliveryEntry:
        row = await lent.fetchrow(
            f"SELECT {_ENTRY} FROM brain.deliveries WHERE tenant_id = $1 AND subscriber = $2 AND id = $3",
            tenant,
            subscriber,
            id,
        )
        if row is None:
            raise NotFound("there is no such delivery")
        return DeliveryEntry.model_validate(dict(row))
