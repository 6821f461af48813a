"""Channels in use (`domain.channels.ChannelStore`): which conversations are bound to them, and what came in."""

from typing import Any

import asyncpg

from domain.channels import RECEIPTS as MAY_FOLLOW
from domain.channels import AlreadyBound, Arrived, Binding, Channel, Inbound, Kind, ReceiptStatus
from domain.errors import NotFound
from domain.ids import new_id
from domain.tenant import Caller
from storage.audit import record
from storage.creation import check_room
from storage.postgres import Connection, Pool, asking, reading
from storage.retry import again
from storage.sealing import MasterKeys
from storage.subscribers import CHANNELS, opened

LISTED = 100_000  # channels that are named at once
_BINDING = "b.tenant_id, b.channel_id, c.kind, b.thread, b.conversation_id, b.channel_user, b.created_at AS bound_at"
_BINDINGS = "brain.channel_bindings b JOIN brain.channels c ON c.tenant_id = b.tenant_id AND c.id = b.channel_id"


class PostgresChannels:
    """Every method may raise `Unavailable`, after three tries."""

    def __init__(self, pool: Pool, keys: MasterKeys) -> None:
        self._pool, self._keys = pool, keys

    @again
    async def found(self, channel_id: str) -> Channel | None:
        async with asking(self._pool) as lent:
            row = await lent.fetchrow("SELECT * FROM brain.find_channel($1)", channel_id)
        return None if row is None else await self._channel(row["tenant_id"], row["channel_id"])

    @again
    async def active(self, kind: Kind) -> list[Channel]:
        async with asking(self._pool) as lent:
            rows = await lent.fetch("SELECT * FROM brain.active_channels($1)", kind)
        found = [await self._channel(row["tenant_id"], row["channel_id"]) for row in rows]
        return [one for one in found if one is not None and one.active]

    @again
    async def ids(self, kind: Kind) -> list[str]:
        """Of active channels of this kind in all tenants, of the oldest `LISTED` where there are more."""
        async with asking(self._pool) as lent:
            listed = await lent.fetchval(  # one text: as rows so many take ten times the work to read
                "SELECT string_agg(channel_id, ' ') FROM"
                " (SELECT channel_id FROM brain.active_channels($1) ORDER BY channel_id LIMIT $2) AS listed",
                kind,
                LISTED,
            )
        return (listed or "").split()

    @again
    async def bound_to(self, tenant: str, conversation: str) -> list[tuple[Channel, Binding]]:
        async with reading(self._pool, tenant) as lent:
            rows = await lent.fetch(
                f"SELECT {_BINDING}, c.* FROM {_BINDINGS} WHERE b.tenant_id = $1 AND b.conversation_id = $2"
                " AND c.status = 'active' ORDER BY c.id",
                tenant,
                conversation,
            )
        return [(channel_of(self._keys, row), _binding(row)) for row in rows]

    @again
    async def bindings(self, tenant: str, conversation: str) -> list[Binding]:
        """Raises `NotFound` where there is no such conversation."""
        async with reading(self._pool, tenant) as lent:
            await _check_conversation(lent, tenant, conversation)
            rows = await lent.fetch(
                f"SELECT {_BINDING} FROM {_BINDINGS} WHERE b.tenant_id = $1 AND b.conversation_id = $2 ORDER BY c.id",
                tenant,
                conversation,
            )
        return [_binding(row) for row in rows]

    @again
    async def thread(self, channel: Channel, thread: str) -> Binding | None:
        async with reading(self._pool, channel.tenant) as lent:
            row = await lent.fetchrow(
                f"SELECT {_BINDING} FROM {_BINDINGS} WHERE b.tenant_id = $1 AND b.channel_id = $2 AND b.thread = $3"
                " AND b.current",
                channel.tenant,
                channel.id,
                thread,
            )
        return None if row is None else _binding(row)

    @again
    async def bind(
        self, caller: Caller, conversation: str, channel: str, thread: str, user: str | None
    ) -> tuple[Binding, bool]:
        """Show a conversation in a thread from now on, and whether that is new. Raises `NotFound`, `AlreadyBound`."""
        tenant = caller.tenant
        async with reading(self._pool, tenant) as lent:
            await _check_conversation(lent, tenant, conversation)
            if not await lent.fetchval(
                "SELECT true FROM brain.channels WHERE tenant_id = $1 AND id = $2 FOR KEY SHARE", tenant, channel
            ):
                raise NotFound("there is no such channel")
            made = await lent.fetchval(
                "INSERT INTO brain.channel_bindings (tenant_id, channel_id, thread, conversation_id, channel_user)"
                " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING true",
                tenant,
                channel,
                thread,
                conversation,
                user,
            )
            row = await lent.fetchrow(
                f"SELECT {_BINDING} FROM {_BINDINGS} WHERE b.tenant_id = $1 AND b.channel_id = $2 AND b.thread = $3"
                " AND b.conversation_id = $4",
                tenant,
                channel,
                thread,
                conversation,
            )
            if row is None:
                raise AlreadyBound()
            if made:
                await record(lent, caller, "channel.bind", channel, {"conversation_id": conversation})
        return _binding(row), bool(made)

    @again
    async def unbind(self, caller: Caller, conversation: str, channel: str) -> None:
        """Raises `NotFound`. What waits already is still delivered."""
        async with reading(self._pool, caller.tenant) as lent:
            gone = await lent.fetchval(
                "DELETE FROM brain.channel_bindings WHERE tenant_id = $1 AND conversation_id = $2 AND channel_id = $3"
                " RETURNING true",
                caller.tenant,
                conversation,
                channel,
            )
            if gone is None:
                raise NotFound("this conversation is not bound to this channel")
            await record(lent, caller, "channel.unbind", channel, {"conversation_id": conversation})

    @again
    async def arrive(self, channel: Channel, inbound: Inbound) -> Arrived:
        tenant = channel.tenant
        async with reading(self._pool, tenant) as lent:
            await _in_turn(lent, channel.id, inbound.thread)
            row = await lent.fetchrow(
                "SELECT m.*, EXISTS (SELECT FROM brain.turns t WHERE t.tenant_id = m.tenant_id AND t.id = m.turn_id)"
                " OR NOT EXISTS (SELECT FROM brain.conversations c WHERE c.tenant_id = m.tenant_id"
                " AND c.id = m.conversation_id) AS accepted FROM brain.channel_messages m"
                " WHERE m.tenant_id = $1 AND m.channel_id = $2 AND m.external_id = $3",
                tenant,
                channel.id,
                inbound.id,
            )
            if row is not None and (row["accepted"] or not await _has_ended(lent, tenant, row["conversation_id"])):
                return Arrived(row["conversation_id"], row["turn_id"], row["message_id"], row["accepted"], True)
            conversation = await _conversation(lent, channel, inbound)
            row = await lent.fetchrow(
                "INSERT INTO brain.channel_messages (tenant_id, channel_id, external_id, conversation_id, turn_id,"
                " message_id) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, channel_id, external_id)"
                " DO UPDATE SET conversation_id = excluded.conversation_id RETURNING turn_id, message_id",
                tenant,
                channel.id,
                inbound.id,
                conversation,
                new_id("turn"),
                new_id("msg"),
            )
            assert row is not None
        return Arrived(conversation, row["turn_id"], row["message_id"], False, False)

    @again
    async def receipt(self, channel: Channel, message: str, status: ReceiptStatus) -> bool:
        before = [one for one, after in MAY_FOLLOW.items() if one is not None and status in after]
        async with reading(self._pool, channel.tenant) as lent:
            done: str = await lent.execute(
                "UPDATE brain.deliveries SET receipt = $4, receipt_at = clock_timestamp() WHERE tenant_id = $1"
                " AND message_id = $3 AND subscriber = $2 AND type = 'message'"
                " AND (receipt IS NULL OR receipt = ANY ($5))",
                channel.tenant,
                channel.id,
                message,
                status,
                before,
            )
        return not done.endswith(" 0")

    @again
    async def try_now(self, channel: Channel) -> None:
        """Let what waits for a channel be tried at once: it is there again. What somebody works on is left out."""
        async with reading(self._pool, channel.tenant) as lent:
            await lent.execute(
                "WITH lanes AS (SELECT stream FROM brain.delivery_lanes WHERE tenant_id = $1 AND subscriber = $2"
                " AND due > clock_timestamp() FOR NO KEY UPDATE SKIP LOCKED),"
                " rows AS (UPDATE brain.deliveries d SET next_at = clock_timestamp() FROM lanes WHERE d.tenant_id = $1"
                " AND d.subscriber = $2 AND d.stream = lanes.stream AND d.status = 'waiting'"
                " AND d.next_at > clock_timestamp())"
                " UPDATE brain.delivery_lanes l SET due = clock_timestamp() FROM lanes"
                " WHERE l.tenant_id = $1 AND l.subscriber = $2 AND l.stream = lanes.stream",
                channel.tenant,
                channel.id,
            )

    async def _channel(self, tenant: str, channel_id: str) -> Channel | None:
        async with reading(self._pool, tenant) as lent:
            row = await lent.fetchrow(
                "SELECT * FROM brain.channels WHERE tenant_id = $1 AND id = $2", tenant, channel_id
            )
        return None if row is None else channel_of(self._keys, row)


async def _in_turn(lent: Connection, channel: str, thread: str) -> None:
    """What arrives of one thread at the same time finds one conversation."""
    await lent.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"channel {channel} {thread}")


async def _conversation(lent: Connection, channel: Channel, inbound: Inbound) -> str:
    """The conversation of a thread: a new one where there is none, or one that has ended."""
    row = await lent.fetchrow(
        "SELECT b.conversation_id, c.status FROM brain.channel_bindings b JOIN brain.conversations c"
        " ON c.tenant_id = b.tenant_id AND c.id = b.conversation_id"
        " WHERE b.tenant_id = $1 AND b.channel_id = $2 AND b.thread = $3 AND b.current",
        channel.tenant,
        channel.id,
        inbound.thread,
    )
    if row is not None and row["status"] == "active":
        return str(row["conversation_id"])
    if row is not None:  # what it still has to say is shown there, too
        await lent.execute(
            "UPDATE brain.channel_bindings SET current = false"
            " WHERE tenant_id = $1 AND channel_id = $2 AND thread = $3 AND current",
            channel.tenant,
            channel.id,
            inbound.thread,
        )
    most = await lent.fetchval(
        "SELECT (settings->'quotas'->>'max_conversations')::integer FROM brain.tenants WHERE id = $1", channel.tenant
    )
    if most is not None:
        await check_room(lent, channel.tenant, most)
    made = new_id("conv")
    await lent.execute(
        "INSERT INTO brain.conversations (tenant_id, id, user_id, metadata) VALUES ($1, $2, $3, $4)",
        channel.tenant,
        made,
        _user(channel, inbound.user),
        {"channel_id": channel.id, "thread": inbound.thread},
    )
    await lent.execute(
        "INSERT INTO brain.channel_bindings (tenant_id, channel_id, thread, conversation_id, channel_user)"
        " VALUES ($1, $2, $3, $4, $5)",
        channel.tenant,
        channel.id,
        inbound.thread,
        made,
        inbound.user,
    )
    await lent.execute(
        "INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES ($1, 'conversation.created', $2)",
        channel.tenant,
        {"conversation_id": made},
    )
    return made


def _user(channel: Channel, user: str | None) -> str | None:
    """Whose conversation it is: names of a channel's own users are nobody else's."""
    return user if user is None or channel.settings.get("users") == "shared" else f"{channel.id}:{user}"


async def _has_ended(lent: Connection, tenant: str, conversation: str) -> bool:
    status = await lent.fetchval(
        "SELECT status FROM brain.conversations WHERE tenant_id = $1 AND id = $2", tenant, conversation
    )
    return bool(status == "ended")


async def _check_conversation(lent: Connection, tenant: str, conversation: str) -> None:
    if not await lent.fetchval(
        "SELECT true FROM brain.conversations WHERE tenant_id = $1 AND id = $2", tenant, conversation
    ):
        raise NotFound("there is no such conversation")


def channel_of(keys: MasterKeys, row: Any) -> Channel:
    return Channel(
        row["tenant_id"],
        row["id"],
        row["kind"],
        row["name"],
        row["settings"],
        opened(keys, CHANNELS.what, row),
        row["status"] == "active",
    )


def _binding(row: asyncpg.Record) -> Binding:
    return Binding(
        row["tenant_id"],
        row["channel_id"],
        row["kind"],
        row["thread"],
        row["conversation_id"],
        row["channel_user"],
        row["bound_at"],
    )
