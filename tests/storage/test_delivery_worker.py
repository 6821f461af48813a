"""The worker of a relay that delivers: what keeps it from its work is told, and over when it is over."""

import asyncio
import logging

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from adapters.channels.service_connection import Pace
from adapters.outgoing import Outgoing
from domain.errors import Unavailable
from serve_app.deliveries import Deliveries
from serve_app.service_channels import service_channel
from storage.conversations import PostgresConversations
from tests.doubles.messaging_service import messaging
from tests.doubles.receiver import ALLOWED, receiving
from tests.servers.given import open_pool
from tests.storage.delivery_world import DeliveryWorld
from tests.unit.ingress_world import MASTER, MemoryJournal, ScriptedHosts


@pytest.fixture
async def world(url):
    pool = await open_pool(url, 8)
    async with receiving() as receiver, Outgoing(ALLOWED, wait=10) as outgoing:
        world = DeliveryWorld(url, pool, outgoing, receiver)
        world.empty()
        world.hosts = ScriptedHosts(PostgresConversations(pool), MemoryJournal())
        yield world
    await pool.close()


@pytest.fixture
def no_connector(monkeypatch):
    """No client can be made, as where a process has no file left to open, until `put_back`; `tries` so far."""
    monkeypatch.setattr(aiohttp, "TCPConnector", Refusing(monkeypatch))
    return aiohttp.TCPConnector


class Refusing:
    def __init__(self, monkeypatch):
        self.real, self.monkeypatch, self.tries = aiohttp.TCPConnector, monkeypatch, 0

    def __call__(self, *_, **__):
        self.tries += 1
        raise OSError(24, "Too many open files")

    def put_back(self):
        self.monkeypatch.setattr(aiohttp, "TCPConnector", self.real)


async def until(condition, within=30):
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_worker_that_cannot_begin_says_so_once_and_goes_on_trying(world, no_connector, caplog):
    who = world.tenant()
    await world.webhook(who)
    world.event(who)
    deliveries, registry = Deliveries(world.pool, MASTER, ALLOWED, world.hosts), CollectorRegistry()
    deliveries.show(registry)
    with caplog.at_level(logging.WARNING, "brain.deliveries"):
        deliveries.start()
        try:
            await until(lambda: no_connector.tries >= 3)
            assert registry.get_sample_value("brain_deliveries_working") == 0
            with pytest.raises(Unavailable, match="Too many open files"):
                deliveries.check()
            assert len(caplog.records) == 1
            no_connector.put_back()
            await until(lambda: world.receiver.heard)
            assert registry.get_sample_value("brain_deliveries_working") == 1
            deliveries.check()
        finally:
            await deliveries.close()


async def test_a_worker_that_has_ended_is_not_well(world):
    deliveries = Deliveries(world.pool, MASTER, ALLOWED, world.hosts)
    deliveries.start()
    await deliveries.close()
    with pytest.raises(Unavailable):
        deliveries.check()


async def test_connections_of_channels_come_up_once_they_can(world, no_connector, own_redis):
    async with messaging() as service:
        service.secrets = world.receiver.secrets
        channel = await world.channel(world.tenant(), "service", url=service.url)
        port = service_channel(
            world.pool, MASTER, ALLOWED, own_redis, lease=1.0, pace=Pace(first=0.05, longest=0.2, patience=0.2)
        )
        try:
            port.on_receive(lambda *_: None)
            with pytest.raises(OSError, match="Too many open files"):
                await port.connect([channel])
            no_connector.put_back()
            await port.connect([channel])
            await service.until(lambda: channel.id in service.live)
        finally:
            await port.close()


async def test_a_worker_that_has_ended_by_itself_wants_a_new_process(world, monkeypatch):
    deliveries = Deliveries(world.pool, MASTER, ALLOWED, world.hosts)

    async def broken():
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(deliveries, "_look", broken)
    assert not deliveries.ended
    deliveries.start()
    try:
        await until(lambda: deliveries.ended)
        with pytest.raises(Unavailable, match="nobody thought of this"):
            deliveries.check()
    finally:
        await deliveries.close()
