"""The replica of `ConversationHost`."""

import asyncio
from typing import Any

from prometheus_client import Counter, Gauge
from ray import serve
from ray.serve.handle import DeploymentHandle

from actors.host import ConversationHost
from actors.parts import HostLimits
from deployments.handles import HandleClassifier, HandleEmbedder, HandleHosts, answered
from deployments.places import HandleLanguageModel, places
from deployments.tokenizers_at_hand import ModelTokenizers
from deployments.tool_handle import HandleTools
from domain.commands import Accepted, Append, Appended, Change, Ended, Refused, Send
from domain.conversation import Conversation, ConversationKey
from domain.model import Catalog, parse_catalog
from serve_app.access_watch import AccessWatch, forgets_tenants
from serve_app.caches import Caches
from serve_app.catalog_watch import CatalogWatch
from serve_app.memory import Memory
from serve_app.process import check_process, prepare
from serve_app.products import open_products
from serve_app.replica_metrics import MetricsPage
from serve_app.retention import Retention
from serve_app.settings import Settings
from serve_app.tenant_catalogues import forgets_endpoints
from serve_app.turn_tools import TurnTools
from serve_app.vectors import vectors
from storage.breakers import RedisBreakers
from storage.catalog import CachedSettings, PostgresCatalog
from storage.compatibility import check_pool
from storage.journal import RedisJournal
from storage.leases import PostgresLeases
from storage.masking import MaskedConversations, masks_of
from storage.postgres import open_pool
from storage.reader import PostgresReader
from storage.recall import PostgresRecall
from storage.redis import open_redis
from storage.spaces import PostgresSpaces
from storage.tenants import PostgresTenants
from storage.unwritten import UnwrittenConversations


class HostReplica:
    """A `ConversationHost` behind a handle."""

    async def __init__(  # type: ignore[misc]
        self,
        llm: DeploymentHandle,
        classifier: DeploymentHandle,
        local: dict[str, DeploymentHandle],
        embedder: DeploymentHandle,
        tools: DeploymentHandle,
    ) -> None:
        settings = Settings()
        prepare(settings.log_level)
        self._pool = await open_pool(
            settings.required("database_url"), settings.database_connections, pooled=settings.database_pooled
        )
        await check_pool(self._pool)
        self._redis = open_redis(settings.required("redis_url"))
        self._journal = RedisJournal(self._redis)
        self._leases = PostgresLeases(self._pool)
        catalog = PostgresCatalog(self._pool)
        models = CachedSettings(catalog.settings)
        self._watch = CatalogWatch(catalog, self._use, models)
        tenants = CachedSettings(PostgresTenants(self._pool).settings)
        self._access = AccessWatch(PostgresReader(self._pool), every=1.0)
        flushed = Caches({"model-settings": models, "tenant-settings": tenants}).heard
        self._access.listeners += [forgets_tenants(tenants), flushed]
        self._retention = Retention(self._pool)
        self._breakers = RedisBreakers(self._redis)
        self._breakers.start()
        self._tokenizers = ModelTokenizers()
        self._memory = Memory(
            PostgresRecall(self._pool), PostgresSpaces(self._pool), HandleEmbedder(embedder), vectors(settings)
        )
        self._products = await open_products(settings, self._pool, HandleEmbedder(embedder))
        context = serve.get_replica_context()
        peers = HandleHosts(serve.get_deployment_handle(context.deployment, context.app_name))
        self._host = ConversationHost(
            store=UnwrittenConversations(self._pool)
            if settings.bench_no_postgres_writes
            else MaskedConversations(self._pool, masks_of(tenants)),
            leases=self._leases,
            journal=self._journal,
            llm=HandleLanguageModel(llm, places(local)),
            classifier=HandleClassifier(classifier),
            catalog=Catalog(),
            resume=peers.resume,
            limits=HostLimits(
                idle=settings.host_idle_s,
                hot_bytes=settings.host_hot_mb * 1024 * 1024,
                lease=settings.host_lease_s,
                context_messages=settings.context_messages,
            ),
            models=models,
            health=self._breakers,
            memory=self._memory if settings.recall else None,
            counters=self._tokenizers,
            tenants=tenants,
            products=self._products.read,
            tools=TurnTools(self._pool, HandleTools(tools)),
        )
        self._metrics = MetricsPage(context.deployment, self._redis)
        registry = self._metrics.registry
        self._products.count(registry)
        self._access.listeners.append(forgets_endpoints(self._products.known, self._host.parts.structures.forget))
        for name, text, value in (
            ("brain_conversations_hot", "Conversations held in memory", lambda: self._host.hot),
            ("brain_conversations_hot_bytes", "Estimated bytes of hot conversations", lambda: self._host.hot_bytes),
            ("brain_turns_unfinished", "Queued and running turns of hot conversations", lambda: self._host.unfinished),
            ("brain_messages_waiting", "Messages in mailboxes", lambda: self._host.parts.waiting),
        ):
            Gauge(name, text, registry=registry).set_function(value)
        self._sends = Counter(
            "brain_messages_sent", "Messages given to hosts, by answer", ["answer"], registry=registry
        )
        self._metrics.start()
        self._access.start()
        self._retention.start()
        await self._host.start()

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        await self._watch.configure(parse_catalog(user_config))

    async def _use(self, catalog: Catalog) -> None:
        self._tokenizers.load(catalog)
        self._host.configure(catalog)

    async def send(self, send: Send) -> Accepted | Ended | Refused:
        for model in (send.model, *send.models):
            await self._watch.hears_of(model)
        answer = await answered(self._host.send(send))
        self._sends.labels(answer.error if isinstance(answer, Refused) else type(answer).__name__).inc()
        return answer

    async def change(self, change: Change) -> Conversation | Refused:
        return await answered(self._host.change(change))

    async def append(self, append: Append) -> Appended | Refused:
        return await answered(self._host.append(append))

    async def delete(self, key: ConversationKey) -> Refused | None:
        return await answered(self._host.delete(key))

    async def cancel(self, key: ConversationKey, turn_id: str) -> Refused | None:
        return await answered(self._host.cancel(key, turn_id))

    async def resume(self, key: ConversationKey) -> Refused | None:
        return await answered(self._host.resume(key))

    async def ping(self) -> dict[str, Any]:
        return {"hot": self._host.hot, "unfinished": self._host.unfinished}

    async def check_health(self) -> None:
        check_process()

    async def __del__(self) -> None:
        await self._host.stop()
        await asyncio.gather(self._watch.close(), self._access.close(), self._retention.close())
        await self._breakers.close()
        await self._metrics.close()
        await asyncio.gather(
            self._journal.close(), self._memory.close(), self._products.close(), return_exceptions=True
        )
        await self._pool.close()
