"""Webhooks, channels and what is delivered to them, over a database of a test's own and a receiver that listens."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import psycopg

from adapters.channels.webhook import WebhookChannel
from adapters.outgoing import Outgoing
from adapters.posting import Posting
from adapters.transport import OutTransport
from deployments.delivering import FanningOut, Figures, Sending
from domain.channel_settings import checked_settings
from domain.channels import Channel, Kind
from domain.deliveries import Retry
from domain.ids import new_id
from domain.permissions import permissions_of
from domain.subscribers import ChannelEntry, Webhook
from domain.tenant import Caller
from serve_app.ingress.shapes import message_json
from storage.channels import PostgresChannels
from storage.fan_out import PostgresFanOut
from storage.lanes import PostgresLanes
from storage.postgres import Pool
from storage.subscribers import CHANNELS, WEBHOOKS, New, PostgresSubscribers
from tests.doubles.receiver import Receiver
from tests.unit.ingress_world import MASTER

SOON = Retry(delays=(0.01,), jitter=0)
TABLES = "webhooks, channels, channel_bindings, channel_messages, deliveries, delivery_lanes, outbox, outbox_set_aside"


@dataclass
class DeliveryWorld:
    """`outgoing`: open. One sender; `sender` makes more."""

    url: str
    pool: Pool
    outgoing: Outgoing
    receiver: Receiver
    figures: Figures = field(default_factory=Figures)

    def __post_init__(self) -> None:
        self.webhooks: PostgresSubscribers[Webhook] = PostgresSubscribers(self.pool, MASTER, WEBHOOKS)
        self.channel_entries: PostgresSubscribers[ChannelEntry] = PostgresSubscribers(self.pool, MASTER, CHANNELS)
        self.channels = PostgresChannels(self.pool, MASTER)
        self.posting = Posting(self.outgoing)
        self.port = WebhookChannel(self.posting)
        self.fanning = FanningOut(PostgresFanOut(self.pool), self.figures, lambda: None)
        self.sending = self.sender()

    def sender(self, retry: Retry = SOON, held: float = 40, **options: Any) -> Sending:
        lanes = PostgresLanes(self.pool, MASTER, held=held)
        transport = OutTransport(self.posting, {"webhook": self.port}, message_json)
        return Sending(lanes, transport, self.figures, retry, **options)

    def sql(self, statement: str, *values: Any) -> list[Any]:
        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def empty(self) -> None:
        self.sql(f"TRUNCATE {', '.join('brain.' + one for one in TABLES.split(', '))} CASCADE")

    def tenant(self) -> Caller:
        made = new_id("ten")
        self.sql("INSERT INTO brain.tenants (id, name) VALUES (%s, 'acme')", made)
        return Caller(made, new_id("key"), "owner", permissions_of("owner"))

    async def webhook(self, who: Caller, events: tuple[str, ...] = ("turn.*",), **values: Any) -> str:
        """Its secret is one that the receiver knows."""
        given = {"url": self.receiver.url, "events": list(events), "description": None, "include_content": False}
        made, secret, _ = await self.webhooks.create(who, New(new_id("whk"), given | values))
        self.receiver.secrets.append(plain(secret))
        return made.id

    async def channel(self, who: Caller, kind: Kind = "webhook", **settings: Any) -> Channel:
        full = checked_settings(kind, {"url": self.receiver.url, **settings})
        made, secret, _ = await self.channel_entries.create(
            who, New(new_id("chn"), {"kind": kind, "name": "shop", "settings": full})
        )
        self.receiver.secrets.append(plain(secret))
        found = await self.channels.found(made.id)
        assert found is not None
        return found

    def event(self, who: Caller, topic: str = "turn.completed", **payload: Any) -> int:
        rows = self.sql(
            "INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES (%s, %s, %s) RETURNING id",
            *(who.tenant, topic, json.dumps(payload)),
        )
        return int(rows[0][0])

    def due(self) -> None:
        """Let every pause and every lease be over."""
        self.sql("UPDATE brain.delivery_lanes SET due = now() - interval '1 s' WHERE due IS NOT NULL")
        self.sql("UPDATE brain.delivery_lanes SET held_until = now() - interval '1 s' WHERE held_until IS NOT NULL")
        self.sql("UPDATE brain.deliveries SET next_at = now() - interval '1 s' WHERE next_at IS NOT NULL")

    def away(self, interval: str) -> None:
        """Let so long have gone by without anybody at work."""
        for table, columns in (
            ("webhooks", ("tried_at", "heard_at")),
            ("channels", ("tried_at", "heard_at")),
            ("deliveries", ("first_tried_at", "next_at", "ours_since")),
            ("delivery_lanes", ("due", "held_until")),
        ):
            sets = ", ".join(f"{column} = {column} - %s::interval" for column in columns)
            self.sql(f"UPDATE brain.{table} SET {sets}", *(interval for _ in columns))

    async def fan_out(self) -> None:
        while await self.fanning.step():
            pass

    async def send(self, sending: Sending | None = None) -> None:
        """All that is due, and what becomes due at once."""
        sending = sending or self.sending
        while await sending.step():
            await sending.settle()

    def statuses(self) -> list[str]:
        return [row[0] for row in self.sql("SELECT status FROM brain.deliveries ORDER BY place")]


def plain(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"))
