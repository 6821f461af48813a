"""What runs in each replica: the plain classes, given their parts. Ray decorates these in `app.py`.

Recipes cross processes, never resources: each replica opens its own connections from its settings, which come from the
environment, so that no secret stands in Serve's configuration.
"""

import asyncio
from array import array
from collections.abc import Sequence
from typing import Any

from prometheus_client import Counter, Gauge
from ray import serve
from ray.serve.handle import DeploymentHandle

from actors.host import ConversationHost
from actors.parts import HostLimits
from deployments.handles import HandleClassifier, HandleEmbedder, HandleHosts, answered
from deployments.hosted_embedder import HostedEmbedder
from deployments.intent_classifier import IntentClassifier
from deployments.intent_trainer import IntentTrainer
from deployments.places import HandleLanguageModel, places
from deployments.providers.vllm import HandleEngine
from deployments.recent_embeddings import RecentEmbeddings
from deployments.states import States
from deployments.tenant_scorers import TenantScorers
from deployments.tokenizers_at_hand import ModelTokenizers
from deployments.tool_handle import HandleTools
from domain.commands import Accepted, Append, Appended, Change, Ended, Refused, Send
from domain.conversation import Conversation, ConversationKey
from domain.embedding import Embedding
from domain.errors import NotTunable
from domain.model import Catalog, parse_catalog
from domain.ports import HeadInUse, Understanding
from domain.understanding import Example
from serve_app.access_watch import AccessWatch, forgets_tenants
from serve_app.caches import Caches
from serve_app.catalog_watch import CatalogWatch
from serve_app.embedders import HeldTo, chosen
from serve_app.generating import Generating, RunsGenerations
from serve_app.memory import Memory
from serve_app.process import check_process, prepare
from serve_app.products import open_products
from serve_app.replica_metrics import MetricsPage
from serve_app.retention import Retention
from serve_app.settings import Settings
from serve_app.tenant_catalogues import forgets_endpoints
from serve_app.turn_tools import TurnTools
from serve_app.vectors import vectors
from storage import complexity_scorers
from storage.breakers import RedisBreakers
from storage.catalog import CachedSettings, PostgresCatalog
from storage.compatibility import check_pool
from storage.intent_heads import PostgresHeads
from storage.intent_trainings import PostgresTrainings
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


class HostedLLMReplica(RunsGenerations):
    """A `HostedLLM` behind a handle. `local`: the deployments of the models that this service runs itself, by id."""

    async def __init__(self, local: dict[str, DeploymentHandle] | None = None) -> None:  # type: ignore[misc]
        prepare(Settings().log_level)
        engines = {model: HandleEngine(handle) for model, handle in (local or {}).items()}
        self._generating = Generating("HostedLLM", engines)
        await self._generating.start()

    async def ping(self) -> dict[str, Any]:
        return {"running": self._generating.llm.running}

    async def check_health(self) -> None:
        check_process()
        await self._generating.llm.check_health()

    async def __del__(self) -> None:
        await self._generating.close()


class ClassifierReplica:
    """An `IntentClassifier` behind a handle."""

    async def __init__(self, embedder: DeploymentHandle) -> None:  # type: ignore[misc]
        settings = Settings()
        prepare(settings.log_level)
        self._pool = await open_pool(settings.required("database_url"), 2, 0, settings.database_pooled)
        self._classifier = IntentClassifier(
            HandleEmbedder(embedder),
            cache=settings.data_folder / "cache",
            tenants=TenantScorers(lambda tenant: complexity_scorers.active(self._pool, tenant)),
            heads=PostgresHeads(self._pool),
        )

    async def classify(self, text: str, tenant: str = "") -> Understanding | Refused:
        return await answered(self._classifier.classify(text, tenant))

    async def classify_many(self, texts: Sequence[str], tenant: str = "") -> list[Understanding] | Refused:
        return await answered(self._classifier.classify_many(texts, tenant))

    async def evaluate(self, examples: Sequence[Example], tenant: str = "") -> dict[str, Any] | Refused:
        return await answered(self._classifier.evaluate(examples, tenant))

    async def head(self, tenant: str) -> HeadInUse | Refused:
        return await answered(self._classifier.head(tenant))

    async def check_health(self) -> None:
        """Also what makes the head ready before the first message."""
        check_process()
        await self._classifier.check_health()

    async def __del__(self) -> None:
        await self._classifier.close()
        await self._pool.close()


class TrainerReplica:
    """An `IntentTrainer` behind a handle."""

    async def __init__(self, embedder: DeploymentHandle) -> None:  # type: ignore[misc]
        settings = Settings()
        prepare(settings.log_level)
        self._pool = await open_pool(settings.required("database_url"), 3, 0, settings.database_pooled)
        await check_pool(self._pool)
        self._trainer = IntentTrainer(
            PostgresTrainings(self._pool), PostgresHeads(self._pool), HandleEmbedder(embedder)
        )
        self._trainer.start()

    async def wake(self) -> None:
        self._trainer.wake()

    async def ping(self) -> dict[str, Any]:
        return {"training": self._trainer.busy}

    async def check_health(self) -> None:
        check_process()

    async def __del__(self) -> None:
        await self._trainer.close()
        await self._pool.close()


class EmbedderReplica:
    """An `Embedder`, or a `HostedEmbedder` where the settings name a URL, behind a handle."""

    def __init__(self) -> None:
        settings = Settings()
        prepare(settings.log_level)
        self._embedder, self._recent = chosen(settings), RecentEmbeddings()
        self._held = HeldTo(self._embedder, self._recent)

    async def embed_together(self, texts: Sequence[str]) -> list["array[float] | Refused"]:
        """Messages, before any bulk; float32, which crosses processes in half the bytes of Python's floats."""
        return await asyncio.gather(*(answered(self._message(text)) for text in texts))

    async def _message(self, text: str) -> "array[float]":
        vector = await self._embedder.embed(text)
        self._recent.keep(text, vector)
        return array("f", vector)

    async def embed_many(self, texts: Sequence[str]) -> Sequence[Embedding] | Refused:
        return await answered(self._embedder.embed_many(texts))

    async def embed_with_states(
        self, texts: Sequence[str], urgent: bool
    ) -> "Sequence[tuple[array[float], States]] | Refused":
        """Vectors, and what goes into the model's last layers, for tenants with tuned heads. `urgent`: messages."""
        return await answered(self._stated(texts, urgent))

    async def _stated(self, texts: Sequence[str], urgent: bool) -> "list[tuple[array[float], States]]":
        if isinstance(self._embedder, HostedEmbedder):
            raise NotTunable("a provider's embedder has no layers that can be tuned")
        found = await self._embedder.embed_with_states(texts, urgent=urgent)
        if urgent:
            for text, (vector, _) in zip(texts, found, strict=True):
                self._recent.keep(text, vector)
        return [(array("f", vector), states) for vector, states in found]

    async def embed_for(self, embedder: str, texts: Sequence[str]) -> Sequence[Embedding] | Refused:
        """As `embed_many`, if this is that embedder. What was embedded a moment ago is not embedded again."""
        return await answered(self._held.embed_for(embedder, texts))

    async def count_tokens(self, texts: Sequence[str]) -> int | Refused:
        return await answered(self._embedder.count_tokens(texts))

    async def describe(self) -> Any:
        return await answered(self._embedder.describe())

    async def check_health(self) -> None:
        check_process()
        await self._embedder.check_health()
