"""The outbox turned into deliveries (`domain.deliveries.FanOut`): a consumer whose work is rows of the same database.

So the work and its confirmation are one transaction: whatever ends it, neither was done. Of a tenant one transaction
works at a time, so the rows of a conversation become deliveries in their order.
"""

import logging
from collections.abc import Sequence

from domain.channels import Binding
from domain.cloud_events import Fact
from domain.deliveries import Fanned
from domain.delivery_plan import Listener, Origin, Planned, for_channels, for_webhooks
from domain.ids import new_id
from storage.postgres import Connection, Pool, asking, reading

log = logging.getLogger("brain.deliveries")
CONSUMER = "deliveries"

_LANES = """
INSERT INTO brain.delivery_lanes AS l (tenant_id, subscriber, stream, webhook_id, channel_id, due)
    SELECT $1, x.subscriber, x.stream, max(x.webhook), max(x.channel), clock_timestamp()
        FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS x (subscriber, stream, webhook, channel)
        GROUP BY x.subscriber, x.stream ORDER BY x.subscriber, x.stream
    ON CONFLICT (tenant_id, subscriber, stream) DO UPDATE SET due = coalesce(l.due, excluded.due)
"""
_DELIVERIES = """
INSERT INTO brain.deliveries (tenant_id, id, subscriber, stream, event_id, type, event, conversation_id, message_id)
    SELECT $1, x.id, x.subscriber, x.stream, x.event_id, x.type, x.event, x.conversation, x.message
        FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::text[], $9::text[])
            WITH ORDINALITY AS x (id, subscriber, stream, event_id, type, event, conversation, message, n)
        ORDER BY x.n
"""


class PostgresFanOut:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._after = ""  # the tenant whose turn was the last

    async def tenants(self, limit: int) -> list[str]:
        sql = "SELECT * FROM brain.outbox_tenants($1, $2, $3) AS tenant"
        async with asking(self._pool) as lent:
            rows = await lent.fetch(sql, CONSUMER, self._after, limit)
            if not rows and self._after:
                rows = await lent.fetch(sql, CONSUMER, "", limit)
        found = [row["tenant"] for row in rows]
        self._after = found[-1] if len(found) == limit else ""
        return found

    async def step(self, tenant: str, limit: int) -> Fanned:
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch("SELECT * FROM brain.take_outbox($1, $2)", CONSUMER, limit)
            if not rows:
                return Fanned()
            facts = [Fact(row["id"], tenant, row["topic"], row["payload"], row["created_at"]) for row in rows]
            listeners = await _listeners(lent, tenant)
            bindings = await _bindings(lent, tenant, facts)
            origins = await _origins(lent, tenant, facts) if bindings else {}
            planned, aside = [], []
            for fact in facts:
                bound = bindings.get(_named(fact, "conversation_id") or "", [])
                try:
                    planned += [*for_webhooks(fact, listeners), *for_channels(fact, bound, origins)]
                except Exception:
                    log.exception("row %d of the outbox cannot be delivered", fact.id, extra={"tenant": tenant})
                    aside.append(fact.id)
            await write(lent, tenant, planned)
            ids = [fact.id for fact in facts]
            await lent.execute(
                "SELECT brain.settle_outbox($1, $2, $3, $4)", CONSUMER, ids, aside, "its events cannot be made"
            )
        began = [
            conversation
            for fact in facts
            if fact.topic == "message.received" and (conversation := _named(fact, "conversation_id")) in bindings
        ]
        return Fanned(len(facts), len(planned), list(dict.fromkeys(one for one in began if one)))


async def write(lent: Connection, tenant: str, planned: Sequence[Planned]) -> list[str]:
    """Put deliveries behind what waits in their lanes; their ids. A lane's row is locked first: so whoever ends what
    waits in it sees these, or these see that he did."""
    if not planned:
        return []
    subscribers = [one.webhook or one.channel for one in planned]
    streams = [one.stream for one in planned]
    await lent.execute(
        _LANES, tenant, subscribers, streams, [one.webhook for one in planned], [one.channel for one in planned]
    )
    ids = [new_id("dlv") for _ in planned]
    await lent.execute(
        _DELIVERIES,
        tenant,
        ids,
        subscribers,
        streams,
        [one.event_id for one in planned],
        [one.type for one in planned],
        [one.event for one in planned],
        [one.conversation for one in planned],
        [one.message for one in planned],
    )
    return ids


async def _listeners(lent: Connection, tenant: str) -> list[Listener]:
    rows = await lent.fetch(
        "SELECT id, events, created_at FROM brain.webhooks WHERE tenant_id = $1 AND status = 'active'"
        " ORDER BY id FOR KEY SHARE",
        tenant,
    )
    return [Listener(row["id"], tuple(row["events"]), row["created_at"]) for row in rows]


async def _bindings(lent: Connection, tenant: str, facts: Sequence[Fact]) -> dict[str, list[Binding]]:
    """By conversation, of channels that are active."""
    rows = await lent.fetch(
        "SELECT b.channel_id, c.kind, b.thread, b.conversation_id, b.channel_user, b.created_at"
        " FROM brain.channel_bindings b JOIN brain.channels c ON c.tenant_id = b.tenant_id AND c.id = b.channel_id"
        " WHERE b.tenant_id = $1 AND b.conversation_id = ANY ($2) AND c.status = 'active'"
        " ORDER BY b.channel_id FOR KEY SHARE OF c",
        tenant,
        list({one for fact in facts if (one := _named(fact, "conversation_id")) is not None}),
    )
    found: dict[str, list[Binding]] = {}
    for row in rows:
        binding = Binding(
            tenant,
            row["channel_id"],
            row["kind"],
            row["thread"],
            row["conversation_id"],
            row["channel_user"],
            row["created_at"],
        )
        found.setdefault(binding.conversation, []).append(binding)
    return found


async def _origins(lent: Connection, tenant: str, facts: Sequence[Fact]) -> dict[str, Origin]:
    rows = await lent.fetch(
        "SELECT message_id, channel_id, external_id FROM brain.channel_messages"
        " WHERE tenant_id = $1 AND message_id = ANY ($2)",
        tenant,
        [_named(fact, "message_id") for fact in facts if fact.topic == "message.received"],
    )
    return {row["message_id"]: Origin(row["channel_id"], row["external_id"]) for row in rows}


def _named(fact: Fact, name: str) -> str | None:
    """An id of a row's payload."""
    found = fact.payload.get(name) if isinstance(fact.payload, dict) else None
    return found if isinstance(found, str) else None
