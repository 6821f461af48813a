"""Hosts, a generation process and a provider in one process; Postgres and Redis are real."""

import asyncio
from dataclasses import dataclass, field

import pytest

from actors.host import ConversationHost
from actors.parts import HostLimits
from benchmarks.mock_provider import MockProvider, serve
from deployments.hosted_llm import HostedLLM
from domain.errors import Unavailable
from domain.events import Position
from domain.message import Intent
from domain.model import parse_catalog
from domain.model_settings import ModelSettings
from domain.ports import Understanding
from domain.tenant_settings import TenantSettings
from storage.conversations import PostgresConversations
from storage.follower import RedisFollower
from storage.journal import RedisJournal
from storage.leases import PostgresLeases
from storage.reader import PostgresReader
from storage.redis import open_redis
from tests.servers.given import open_pool


class Greeter:
    """A classifier that answers at once; `away` makes it unreachable."""

    away = False
    complexity = None
    clarification = None

    async def classify(self, text, tenant=""):
        if self.away:
            raise Unavailable("the classifier is away")
        intent = Intent(name="greeting", confidence=0.9)
        return Understanding(intent, [intent], [1.0], self.complexity, version=3, clarification=self.clarification)


@dataclass
class Rules:
    """Tenants' rules for models: the same for all; None while nobody can tell them."""

    current: ModelSettings | None = field(default_factory=ModelSettings)

    async def settings(self, tenant):
        if self.current is None:
            raise Unavailable("the rules cannot be read")
        return self.current

    def are(self, **fields):
        self.current = ModelSettings.model_validate(fields)


@dataclass
class Tenants:
    """What tenants are set to: the same for all; None while nobody can tell it."""

    current: TenantSettings | None = field(default_factory=TenantSettings)

    async def settings(self, tenant):
        if self.current is None:
            raise Unavailable("the settings cannot be read")
        return self.current

    def are(self, **fields):
        self.current = TenantSettings.model_validate(fields)


@dataclass
class Vitals:
    """Which models fail."""

    failing: frozenset = frozenset()

    def unhealthy(self):
        return self.failing


class Switch:
    """The generation process as its callers see it: it can die, and another one take its place."""

    def __init__(self, make):
        self._make, self.current = make, make()
        self.asked = []

    async def generate(self, request):
        self.asked.append(request)
        return await self.current.generate(request)

    async def cancel(self, request):
        await self.current.cancel(request)

    async def die(self):
        dead, self.current = self.current, self._make()
        await dead.close()


@dataclass
class World:
    pool: object
    redis_url: str
    catalog: object
    llm: Switch
    journal: object
    follower: object
    mock: MockProvider
    database_url: str = ""
    classifier: Greeter = field(default_factory=Greeter)
    rules: Rules = field(default_factory=Rules)
    vitals: Vitals = field(default_factory=Vitals)
    hosts: list = field(default_factory=list)
    tenants: Tenants = field(default_factory=Tenants)
    tools: object = None
    products: object = None

    async def host(self, **limits) -> ConversationHost:
        async def resume(key):
            await self.hosts[-1].resume(key)

        host = ConversationHost(
            PostgresConversations(self.pool),
            PostgresLeases(self.pool),
            self.journal,
            self.llm,
            self.classifier,
            self.catalog,
            resume,
            HostLimits(**{"lease": 0.6, **limits}),
            self.rules,
            self.vitals,
            tenants=self.tenants,
            tools=self.tools,
            products=self.products,
        )
        await host.start()
        self.hosts.append(host)
        return host

    async def kill(self, host) -> None:
        """As `kill -9`: nothing is given back, nobody is told; generations live in another process."""
        for task in host._loops:
            task.cancel()
        for actor in list(host._actors.values()):
            for live in actor.turns.values():
                if live.task is not None:
                    live.task.cancel()
            actor.mailbox.closed = Unavailable("killed")
        host._stopping = True

    async def trace(self, tenant, turn_id):
        return await self.reader.trace(tenant, turn_id)

    @property
    def reader(self):
        return PostgresReader(self.pool)

    async def events(self, tenant, turn_id, position=None):
        found = []
        async with asyncio.timeout(20):
            async for batch in self.follower.follow(tenant, turn_id, position or Position()):
                found += batch
        return found

    @property
    def store(self):
        return PostgresConversations(self.pool)


@pytest.fixture
async def world(database_url, redis_url):
    provider = MockProvider("k")
    runner, url = await serve(provider)
    import os

    os.environ["MOCK_KEY"] = "k"
    models = [
        {"id": "resets", "upstream": "mock,n=20,fault=cut,at=5", "reset": True},
        {"id": "goes-on", "upstream": "mock,n=40,itl=25", "continues": True},
        {"id": "cheap", "upstream": "mock,n=4", "price_in": 0.1, "price_out": 0.4, "quality": 0.4},
        {"id": "strong", "upstream": "mock,n=6", "price_in": 5, "price_out": 15, "price_cached": 0.5, "quality": 0.9},
        {"id": "wide", "upstream": "mock,n=4", "price_in": 2, "price_out": 2, "quality": 0.5, "context_tokens": 64_000},
        {"id": "dear", "upstream": "mock,n=40,itl=25", "price_in": 5, "price_out": 15},
        {"id": "priced-slow", "upstream": "mock,n=90,itl=25", "price_in": 1, "price_out": 1},
        {"id": "mock*"},
    ]
    catalog = parse_catalog(
        {
            "providers": [{"name": "m", "base_url": url, "key": "${MOCK_KEY}", "models": models}],
            "routing": {"default": "mock,n=8"},
        }
    )
    pool = await open_pool(database_url, 10)
    journal = RedisJournal(open_redis(redis_url), claim=0.8)
    follower = RedisFollower(open_redis(redis_url), open_redis(redis_url, 10), idle=0.5)
    llm = Switch(lambda: HostedLLM(journal, catalog, beat=0.2))
    world = World(pool, redis_url, catalog, llm, journal, follower, provider, database_url)
    yield world
    for host in world.hosts:
        await host.stop()
    await llm.current.close()
    await follower.close()
    await journal.close()
    await pool.close()
    await runner.cleanup()
