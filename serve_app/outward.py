"""What the routes of webhooks and channels work with."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from adapters.allow_list import AllowList
from adapters.channels.receiving import Receiving
from adapters.channels.webhook import WebhookChannel
from adapters.outgoing import Outgoing
from adapters.posting import Posting
from domain.channels import ChannelPort, Kind
from domain.ports import Hosts
from domain.subscribers import ChannelEntry, Webhook
from serve_app.ingress.unsigned import Unsigned
from storage.attempts import Attempts
from storage.channels import PostgresChannels
from storage.delivery_log import PostgresDeliveryLog
from storage.postgres import Pool
from storage.sealing import MasterKeys
from storage.subscribers import CHANNELS, WEBHOOKS, PostgresSubscribers

WAIT, LIMIT = 5.0, 16 * 1024  # seconds and bytes of an answer to what may get lost


@dataclass(frozen=True, slots=True)
class Outward:
    """`bindings`: channels in use. `ports`: by kind, for what may get lost; the relay sends what must not. `allowed`:
    where tenants' URLs may lead though it is no public address. `unsigned`: who sends what no channel signed."""

    webhooks: PostgresSubscribers[Webhook]
    webhook_log: PostgresDeliveryLog
    channels: PostgresSubscribers[ChannelEntry]
    channel_log: PostgresDeliveryLog
    bindings: PostgresChannels
    receiving: Receiving
    ports: dict[Kind, ChannelPort]
    allowed: AllowList
    outgoing: Outgoing
    unsigned: Unsigned

    async def close(self) -> None:
        await self.receiving.close()
        for port in self.ports.values():
            await port.close()
        await self.outgoing.__aexit__()


async def open_outward(
    pool: Pool,
    keys: MasterKeys,
    allowed: AllowList,
    hosts: Hosts,
    more: Sequence[ChannelPort] = (),
    attempts: Attempts | None = None,
) -> Outward:
    """`more`: ports of other kinds of channels than webhooks. `attempts`: counted for all replicas; None: for this
    one."""
    outgoing = await Outgoing(allowed, WAIT, LIMIT).__aenter__()
    store = PostgresChannels(pool, keys)
    ports: dict[Kind, ChannelPort] = {"webhook": WebhookChannel(Posting(outgoing))}
    ports |= {port.kind: port for port in more}
    receiving = Receiving(store, hosts, ports)
    for port in ports.values():
        port.on_receive(receiving.receive)
    return Outward(
        PostgresSubscribers(pool, keys, WEBHOOKS),
        PostgresDeliveryLog(pool, WEBHOOKS),
        PostgresSubscribers(pool, keys, CHANNELS),
        PostgresDeliveryLog(pool, CHANNELS),
        store,
        receiving,
        ports,
        allowed,
        outgoing,
        Unsigned(attempts or Attempts(None), partial(store.ids, "webhook")),
    )
