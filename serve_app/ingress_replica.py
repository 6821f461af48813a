"""What runs in each ingress replica: the HTTP application over ports that lead to the other deployments."""

import asyncio
import logging
from functools import partial
from typing import Any

from fastapi import FastAPI
from ray.serve.handle import DeploymentHandle
from redis.exceptions import RedisError

from deployments.handles import HandleClassifier, HandleEmbedder, HandleHosts, HandleTrainer, ask
from deployments.places import HandleLanguageModel, places
from domain.model import Catalog, parse_catalog
from domain.ports import Hosts
from serve_app.access_watch import AccessWatch, forgets_tenants
from serve_app.caches import CacheCollector, Caches
from serve_app.catalog_watch import CatalogWatch
from serve_app.erasing import Erasing
from serve_app.ingress.app import create_app
from serve_app.ingress.event_parts import events
from serve_app.ingress.identity import identity
from serve_app.ingress.keys_used import KeysUsed
from serve_app.ingress.limiter import OfSettings
from serve_app.ingress.limits_told import LimitsTold
from serve_app.ingress.metrics import REGISTRY
from serve_app.ingress.parts import Administration, IngressSettings, Intents, Parts, Privacy
from serve_app.ingress.socket.sockets import sockets
from serve_app.ingress.tool_parts import tool_parts
from serve_app.memory import Memory
from serve_app.outbox_watch import OutboxWatch, check_writing
from serve_app.outward import open_outward
from serve_app.process import check_process, prepare
from serve_app.products import CACHE, open_products
from serve_app.replica_metrics import MetricsPage
from serve_app.service_channels import service_channel
from serve_app.settings import Settings
from serve_app.tenant_catalogues import forgets_endpoints
from serve_app.vectors import vectors
from serve_app.version import version
from storage import erasure, receipts
from storage.access import API_KEYS
from storage.audit import PostgresAudit
from storage.breakers import RedisBreakers
from storage.caches import tell_flush
from storage.catalog import CachedSettings, PostgresCatalog
from storage.compatibility import check_pool
from storage.data_export import PostgresDataExport
from storage.erased_journals import forget_journals
from storage.erasure import PostgresErasure
from storage.follower import RedisFollower
from storage.intent_heads import PostgresHeads
from storage.intent_trainings import PostgresTrainings
from storage.intents import PostgresIntents
from storage.keys import PostgresKeys
from storage.ledger import PostgresLedger
from storage.limits import RedisLimits
from storage.outbox import PostgresOutbox
from storage.platform import PostgresPlatform
from storage.postgres import open_pool
from storage.reader import PostgresReader
from storage.recall import PostgresRecall
from storage.redis import open_redis
from storage.roles import PostgresRoles
from storage.sealing import MasterKeys
from storage.spaces import PostgresSpaces
from storage.tenants import PostgresTenants, delete_tenant

log = logging.getLogger("brain.ingress")
SETTLE = 5.0  # seconds that entering the last completions into the ledger may take
BESIDE = ("intent_trainer", "indexer", "relay", "tools")  # work in the background: no answer to a client needs them
LIMITS_ANSWER = 1.0  # seconds that one request waits for Redis to count it, before all are counted here
DRAINING = "brain:draining"  # a key in Redis: whoever stops the service sets it


class IngressReplica:
    """Ready once every part has answered; not ready while the service drains. A dependency that is down later answers
    503 call by call, and does not change readiness."""

    async def __init__(  # type: ignore[misc]
        self,
        host: DeploymentHandle,
        llm: DeploymentHandle,
        embedder: DeploymentHandle,
        classifier: DeploymentHandle,
        local: dict[str, DeploymentHandle],
        trainer: DeploymentHandle,
        indexer: DeploymentHandle,
        relay: DeploymentHandle,
        tools: DeploymentHandle,
    ) -> None:
        settings = Settings()
        prepare(settings.log_level)
        redis_url = settings.required("redis_url")
        self._pool = await open_pool(
            settings.required("database_url"), settings.database_connections, pooled=settings.database_pooled
        )
        await check_pool(self._pool)
        self._redis = open_redis(redis_url)
        self._follower = RedisFollower(open_redis(redis_url), open_redis(redis_url, timeout=10))
        self._metrics = MetricsPage("Ingress", self._redis, REGISTRY)
        self._complete = self._draining = False
        reader = PostgresReader(self._pool, settings.master_keys.derived(API_KEYS))
        self._access = AccessWatch(reader)
        self._identity = identity(settings, self._pool, self._redis)
        catalog = PostgresCatalog(self._pool)
        models = CachedSettings(catalog.settings)
        tenants, keys = PostgresTenants(self._pool), PostgresKeys(self._pool, settings.master_keys)
        known_tenants = CachedSettings(tenants.settings)
        self._access.listeners.append(forgets_tenants(known_tenants))
        self._used = KeysUsed(keys.used)
        caches = Caches({"model-settings": models, "tenant-settings": known_tenants})
        CacheCollector(caches, REGISTRY)
        self._registry = CatalogWatch(catalog, self._use, models)
        self._breakers = RedisBreakers(self._redis)
        self._breakers.start()
        self._memory = Memory(
            PostgresRecall(self._pool), PostgresSpaces(self._pool), HandleEmbedder(embedder), vectors(settings)
        )
        self._events = events(self._pool, redis_url)
        self._sockets = sockets(open_redis(redis_url), open_redis(redis_url, timeout=10))
        self._outbox = OutboxWatch(PostgresOutbox(self._pool, "indexer"), REGISTRY)

        async def indexing() -> None:
            check_writing(await ask(lambda: indexer.ping.remote()))
            self._outbox.check()

        self._products = await open_products(settings, self._pool, HandleEmbedder(embedder))
        self._products.count(REGISTRY)
        caches.named[CACHE] = self._products.cache
        self._access.listeners.append(forgets_endpoints(self._products.known))
        sealing, allowed = settings.master_keys, settings.outgoing
        service = service_channel(self._pool, sealing, allowed, redis_url)
        self._outward = await open_outward(
            self._pool, sealing, allowed, HandleHosts(host), [service], self._identity.attempts
        )
        self.parts = Parts(
            reader=reader,
            outward=self._outward,
            watch=self._access,
            identity=self._identity,
            find_token=self._identity.callers.find,
            caches=caches,
            tell_flush=partial(tell_flush, self._pool),
            shared_limits=RedisLimits(open_redis(redis_url, timeout=LIMITS_ANSWER)),
            hosts=HandleHosts(host),
            follower=self._follower,
            llm=HandleLanguageModel(llm, places(local)),
            embedder=HandleEmbedder(embedder),
            classifier=HandleClassifier(classifier),
            catalog=Catalog(),
            metrics=self._metrics_text,
            models=models,
            health=self._breakers,
            registry=self._registry,
            ledger=PostgresLedger(self._pool),
            intents=Intents(
                PostgresIntents(self._pool),
                PostgresTrainings(self._pool),
                PostgresHeads(self._pool),
                HandleTrainer(trainer).wake,
            ),
            ready=lambda: self._complete and not self._draining,
            checks={
                "postgres": lambda: self._pool.fetchval("SELECT 1"),
                "redis": self._redis.ping,
                "conversation_host": lambda: ask(lambda: host.ping.remote()),
                "hosted_llm": lambda: ask(lambda: llm.ping.remote()),
                "embedder": lambda: ask(lambda: embedder.describe.remote()),
                "intent_classifier": lambda: ask(lambda: classifier.check_health.remote()),
                "intent_trainer": lambda: ask(lambda: trainer.ping.remote()),
                "indexer": indexing,
                "relay": lambda: ask(lambda: relay.ping.remote()),
                "tools": lambda: ask(lambda: tools.ping.remote()),
            },
            memory=self._memory,
            catalogue=self._products.catalogue,
            sockets=self._sockets,
            tools=tool_parts(settings, self._pool, tools),
            tenants=known_tenants,
            tenant_limits=OfSettings(known_tenants.settings),
            administration=Administration(
                tenants,
                keys,
                PostgresRoles(self._pool),
                PostgresAudit(self._pool),
                PostgresPlatform(self._pool),
                partial(delete_tenant, self._pool),
                self._used,
            ),
            master_keys=settings.master_keys,
            events=self._events,
            privacy=self._privacy(settings.master_keys, HandleHosts(host)),
            settings=IngressSettings(
                version=version(),
                server_adds_request_id=True,
                admission_wait=settings.admission_wait_s,
                edge=settings.edge,
            ),
        )
        self.parts.limiter.told = LimitsTold(self._pool).saw
        self._identity.start(self._access)
        self._sockets.start(self.parts.callers, self._access)
        self._metrics.start()
        self._outbox.start()
        self._access.start()
        self._used.start()
        self.parts.limiter.start()
        self._watch = asyncio.create_task(self._watch_state())

    async def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self.parts)

    async def check_health(self) -> None:
        check_process()

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        await self._registry.configure(parse_catalog(user_config))

    def _privacy(self, keys: MasterKeys, hosts: Hosts) -> Privacy:
        erasing = Erasing(
            PostgresErasure(self._pool, keys.derived(erasure.PURPOSE)),
            hosts,
            receipts.Receipts(keys.derived(receipts.PURPOSE)),
            lambda tenant, turns: forget_journals(self._redis, tenant, turns),
            self._memory,
            self._access.refresh,
        )
        return Privacy(erasing, PostgresDataExport(self._pool))

    async def _use(self, catalog: Catalog) -> None:
        self.parts.catalog = catalog

    async def __del__(self) -> None:
        self._watch.cancel()
        await self._sockets.close()
        await self._access.close()
        await self._used.close()
        await self._identity.close()
        await self._registry.close()
        await self._breakers.close()
        await self._metrics.close()
        await self._outbox.close()
        await self._events.close()
        await self._outward.close()
        await self._products.close()
        await self.parts.accounts.close(SETTLE)
        closing = (self.parts.limiter.close(), self._memory.close(), self._follower.close(), self._pool.close())
        await asyncio.gather(*closing, return_exceptions=True)

    async def _metrics_text(self) -> str:
        return (await self._metrics.merged()).decode()

    async def _watch_state(self) -> None:
        while True:
            if not self._complete:
                vitals = await self.parts.vitals.measure()
                self._complete = all(vital["status"] == "ok" for name, vital in vitals.items() if name not in BESIDE)
            try:
                self._draining = bool(await self._redis.exists(DRAINING))
            except (RedisError, OSError, TimeoutError):
                log.debug("Redis is away: whether the service drains is not known")
            if self._draining:
                self._sockets.drain()
            else:
                self._sockets.draining = False
            await asyncio.sleep(0.2 if not self._complete else 1.0)
