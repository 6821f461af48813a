"""Deliveries that wait (`domain.deliveries.Lanes`), for one sender."""

import uuid
from datetime import timedelta
from typing import Any

import asyncpg

from domain.channels import Channel, Sent
from domain.deliveries import HELD, UNENDED, Delivery, Due, Lane, Tried, Verdict, WebhookTarget
from domain.message import Message
from storage import rows
from storage.channels import channel_of
from storage.postgres import Connection, Pool, asking, call, reading
from storage.sealing import MasterKeys
from storage.subscribers import CHANNELS, WEBHOOKS, Table, by_the_service, disable, opened

ABSENT = timedelta(minutes=1)  # with something due and nothing tried: the service is away. More than attempts take
NOTED = timedelta(seconds=10)  # about when a subscriber was last tried is known so exactly: not each attempt writes it

_HOLD = (
    "UPDATE brain.delivery_lanes SET held_until = clock_timestamp() + $5 WHERE tenant_id = $1 AND subscriber = $2"
    " AND stream = $3 AND holder = $4 RETURNING webhook_id, channel_id"
)
_GIVE_UP = (
    "UPDATE brain.delivery_lanes SET holder = NULL, held_until = NULL, due = $5 WHERE tenant_id = $1"
    " AND subscriber = $2 AND stream = $3 AND holder = $4"
)
_NEXT = (
    "SELECT id, next_at, coalesce(next_at <= clock_timestamp(), true) AS due,"
    " coalesce(extract(epoch FROM clock_timestamp() - ours_since), 0)::float8 AS waited"
    " FROM brain.deliveries WHERE tenant_id = $1 AND subscriber = $2 AND stream = $3 AND status = 'waiting'"
    " ORDER BY place LIMIT 1"
)
# That something is tried at the subscriber now, and for how long in all nothing was though something was due. Whoever
# finds the row locked leaves the writing to the other and counts the same: attempts wait for each other nowhere here.
_TRYING = (
    "WITH seen AS (SELECT absent, CASE WHEN tried_at > clock_timestamp() - $3::interval THEN interval '0'"
    " ELSE clock_timestamp() - greatest(tried_at, coalesce((SELECT min(due) FROM brain.delivery_lanes"
    " WHERE tenant_id = $1 AND subscriber = $2 AND due IS NOT NULL), clock_timestamp())) END AS gap"
    " FROM brain.{table} WHERE tenant_id = $1 AND id = $2),"
    " found AS (SELECT CASE WHEN gap > $3 THEN absent + gap ELSE absent END AS absent FROM seen),"
    " mine AS (SELECT id FROM brain.{table} WHERE tenant_id = $1 AND id = $2"
    " AND coalesce(tried_at < clock_timestamp() - $4::interval, true) FOR NO KEY UPDATE SKIP LOCKED),"
    " told AS (UPDATE brain.{table} s SET tried_at = clock_timestamp(), absent = found.absent FROM mine, found"
    " WHERE s.tenant_id = $1 AND s.id = mine.id)"
    " SELECT absent FROM found"
)
# Its day goes on while its subscriber is tried, if only elsewhere: `away` sums up what does not count. Many attempts in
# a row that nobody ended keep off the next one, whoever lives to make it.
_BEGIN = (
    "UPDATE brain.deliveries SET attempts = attempts + 1, first_tried_at = coalesce(first_tried_at, clock_timestamp()),"
    " away = CASE WHEN first_tried_at IS NULL THEN interval '0'"
    " WHEN ours_since IS NOT NULL THEN away + greatest(clock_timestamp() - ours_since, interval '0')"
    " ELSE away + greatest($3::interval - coalesce(absent_then, $3::interval), interval '0') END,"
    " absent_then = $3, ours_since = NULL, unended = unended + 1,"
    " next_at = clock_timestamp() + least(greatest(unended + 1 - $4, 0) * interval '10 minutes', interval '10 hours')"
    " WHERE tenant_id = $1 AND id = $2 AND status = 'waiting'"
    " RETURNING id, event_id, type, event, message_id, attempts, unended - 1 AS unended,"
    " extract(epoch FROM clock_timestamp() - first_tried_at)::float8 AS wall,"
    " extract(epoch FROM clock_timestamp() - first_tried_at - away)::float8 AS elapsed"
)
_END = (
    "UPDATE brain.deliveries SET status = $3, next_at = clock_timestamp() + $4, http_status = $5, answer = $6,"
    " error = $7, duration_ms = $8::integer, ended_at = CASE WHEN $3 <> 'waiting' THEN clock_timestamp() END,"
    " receipt = CASE WHEN $3 = 'delivered' THEN coalesce(receipt, 'sent') ELSE receipt END,"
    " receipt_at = CASE WHEN $3 = 'delivered' THEN coalesce(receipt_at, clock_timestamp()) ELSE receipt_at END,"
    " attempts = CASE WHEN $9 THEN attempts - 1 ELSE attempts END, unended = 0,"
    " ours_since = CASE WHEN $9 THEN clock_timestamp() - $8::integer * interval '1 ms' END"
    " WHERE tenant_id = $1 AND id = $2 AND status = 'waiting' RETURNING first_tried_at, next_at"
)
_END_ALL = (
    "UPDATE brain.deliveries SET status = 'failed', ended_at = clock_timestamp(), next_at = NULL,"
    " error = coalesce(error, 'it is disabled')"
    " WHERE tenant_id = $1 AND subscriber = $2 AND stream = $3 AND status = 'waiting'"
)


class PostgresLanes:
    """`share`: lanes of a tenant, and `each`: of a subscriber, that all senders together work on at once."""

    def __init__(
        self,
        pool: Pool,
        keys: MasterKeys,
        share: int = 16,
        each: int = 8,
        held: float = HELD,
        holder: str | None = None,
    ) -> None:
        self._pool, self._keys, self._share, self._each = pool, keys, share, each
        self._held, self._holder = timedelta(seconds=held), holder or str(uuid.uuid4())
        self._after = ""  # the tenant whose turn was the last

    async def claim(self, limit: int) -> list[Lane]:
        async with asking(self._pool) as lent:
            found = await lent.fetch(
                "SELECT * FROM brain.claim_lanes($1, $2, $3, $4, $5, $6)",
                self._holder,
                self._held,
                self._after,
                self._share,
                self._each,
                limit,
            )
        lanes = [Lane(row["tenant_id"], row["subscriber"], row["stream"]) for row in found]
        self._after = lanes[-1].tenant if lanes else ""
        return lanes

    async def first(self, lane: Lane) -> Due | None:
        async with reading(self._pool, lane.tenant) as lent:
            held = await lent.fetchrow(_HOLD, *self._mine(lane), self._held)
            if held is None:
                return None
            head = await lent.fetchrow(_NEXT, lane.tenant, lane.subscriber, lane.stream)
            if head is None or not head["due"]:
                await lent.execute(_GIVE_UP, *self._mine(lane), None if head is None else head["next_at"])
                return None
            target = await self._target(lent, lane, held)
            if target is None:  # what was made of events while it was being disabled waits for nothing
                await lent.execute(_END_ALL, lane.tenant, lane.subscriber, lane.stream)
                await lent.execute(_GIVE_UP, *self._mine(lane), None)
                return None
            trying = _TRYING.format(table=_table(target).name)
            absent = await lent.fetchval(trying, lane.tenant, lane.subscriber, ABSENT, NOTED)
            row = await lent.fetchrow(_BEGIN, lane.tenant, head["id"], absent, UNENDED)
            assert row is not None
            message = await _message(lent, lane.tenant, row["message_id"])
        return Due(lane, _delivery(row, head["waited"]), target, message)

    async def ended(self, due: Due, sent: Sent | None, verdict: Verdict, seconds: float) -> bool:
        lane = due.lane
        async with reading(self._pool, lane.tenant) as lent:
            if await lent.fetchrow(_HOLD, *self._mine(lane), self._held) is None:
                return False
            row = await lent.fetchrow(
                _END,
                lane.tenant,
                due.delivery.id,
                verdict.status,
                None if verdict.wait is None else timedelta(seconds=verdict.wait),
                None if sent is None else sent.status,
                None if sent is None else sent.answer,
                None if sent is None else sent.error,
                round(seconds * 1000),
                sent is not None and sent.ours,
            )
            if row is not None:
                await self._heard(lent, due, verdict, row["first_tried_at"])
            head = await lent.fetchrow(_NEXT, lane.tenant, lane.subscriber, lane.stream)
            more = head is not None and bool(head["due"])
            if not more:
                await lent.execute(_GIVE_UP, *self._mine(lane), None if head is None else head["next_at"])
        return more

    async def release(self, lane: Lane) -> None:
        async with reading(self._pool, lane.tenant) as lent:
            await lent.execute(
                "UPDATE brain.delivery_lanes SET holder = NULL, held_until = NULL WHERE tenant_id = $1"
                " AND subscriber = $2 AND stream = $3 AND holder = $4",
                *self._mine(lane),
            )

    async def lag(self) -> tuple[int, float]:
        """Lanes with something due, and for how many seconds the first has been."""
        row = await call(self._pool, "SELECT * FROM brain.deliveries_lag()")
        return int(row["waiting"]), float(row["seconds"])

    async def prune(self, days: float, limit: int = 5000) -> int:
        """Remove a part of what ended so long ago; 0 when nothing is left to do."""
        row = await call(self._pool, "SELECT brain.prune_deliveries($1, $2) AS gone", timedelta(days=days), limit)
        return int(row["gone"])

    def _mine(self, lane: Lane) -> tuple[str, str, str, str]:
        return lane.tenant, lane.subscriber, lane.stream, self._holder

    async def _target(self, lent: Connection, lane: Lane, held: asyncpg.Record) -> WebhookTarget | Channel | None:
        table = WEBHOOKS if held["webhook_id"] is not None else CHANNELS
        row = await lent.fetchrow(
            f"SELECT * FROM brain.{table.name} WHERE tenant_id = $1 AND id = $2 AND status = 'active'",
            lane.tenant,
            lane.subscriber,
        )
        if row is None:
            return None
        if table is CHANNELS:
            return channel_of(self._keys, row)
        secrets = opened(self._keys, table.what, row)
        return WebhookTarget(lane.tenant, row["id"], row["url"], row["include_content"], secrets)

    async def _heard(self, lent: Connection, due: Due, verdict: Verdict, first_tried_at: Any) -> None:
        """A subscriber that took nothing for as long as this was tried is disabled."""
        table = _table(due.target)
        of = (due.lane.tenant, due.lane.subscriber)
        if verdict.status == "delivered":
            await lent.execute(
                f"UPDATE brain.{table.name} SET heard_at = clock_timestamp() WHERE tenant_id = $1 AND id = $2"
                " AND (heard_at IS NULL OR heard_at < clock_timestamp() - interval '1 minute')",
                *of,
            )
        elif verdict.why == "gone":
            await disable(lent, by_the_service(of[0]), table, of[1], "it answered 410 Gone")
        elif verdict.why == "exhausted":
            heard = await lent.fetchval(
                f"SELECT heard_at FROM brain.{table.name} WHERE tenant_id = $1 AND id = $2 FOR UPDATE", *of
            )
            if heard is None or heard < first_tried_at:
                reason = "it took nothing for as long as a delivery was tried"
                await disable(lent, by_the_service(of[0]), table, of[1], reason)


def _table(target: WebhookTarget | Channel) -> Table[Any]:
    return WEBHOOKS if isinstance(target, WebhookTarget) else CHANNELS


def _delivery(row: asyncpg.Record, waited: float) -> Delivery:
    tried = Tried(row["attempts"], row["elapsed"], row["wall"], waited, row["unended"])
    return Delivery(row["id"], row["event_id"], row["type"], row["event"], row["message_id"], tried)


async def _message(lent: Connection, tenant: str, message_id: str | None) -> Message | None:
    if message_id is None:
        return None
    row = await lent.fetchrow(
        f"SELECT {rows.MESSAGE} FROM {rows.MESSAGES} WHERE m.tenant_id = $1 AND m.id = $2", tenant, message_id
    )
    return None if row is None else rows.message(row)
