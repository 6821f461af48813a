"""What runs in each replica: the plain classes, given their parts. Ray decorates these in `app.py`.

Recipes cross processes, never resources: each replica opens its own connections from its settings, which come from the
environment, so that no secret stands in Serve's configuration.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from prometheus_client import Counter, Gauge
from ray import serve
from ray.serve.handle import DeploymentHandle

from actors.host import ConversationHost
from actors.parts import HostLimits
from deployments.embedder import Embedder
from deployments.handles import HandleClassifier, HandleEmbedder, HandleHosts, HandleLanguageModel, answered
from deployments.hosted_llm import HostedLLM
from deployments.intent_classifier import IntentClassifier
from domain.commands import Accepted, Change, Ended, Refused, Send
from domain.conversation import Conversation, ConversationKey
from domain.embedding import Embedding
from domain.generation import GenerationRequest, Outcome
from domain.model import Catalog, parse_catalog
from domain.ports import Understanding
from serve_app.ingress.logs import configure_logging
from serve_app.replica_metrics import MetricsPage
from serve_app.settings import Settings
from storage.conversations import PostgresConversations
from storage.journal import RedisJournal
from storage.leases import PostgresLeases
from storage.postgres import open_pool
from storage.redis import open_redis
from storage.unwritten import UnwrittenConversations


class HostReplica:
    """A `ConversationHost` behind a handle."""

    async def __init__(self, llm: DeploymentHandle, classifier: DeploymentHandle) -> None:  # type: ignore[misc]
        settings = Settings()
        configure_logging(settings.log_level)
        self._pool = await open_pool(settings.required("database_url"), settings.database_connections)
        self._redis = open_redis(settings.required("redis_url"))
        self._journal = RedisJournal(self._redis)
        self._leases = PostgresLeases(self._pool)
        context = serve.get_replica_context()
        peers = HandleHosts(serve.get_deployment_handle(context.deployment, context.app_name))
        self._host = ConversationHost(
            store=(UnwrittenConversations if settings.bench_no_postgres_writes else PostgresConversations)(self._pool),
            leases=self._leases,
            journal=self._journal,
            llm=HandleLanguageModel(llm),
            classifier=HandleClassifier(classifier),
            catalog=Catalog(),
            resume=peers.resume,
            limits=HostLimits(
                idle=settings.host_idle_s,
                hot_bytes=settings.host_hot_mb * 1024 * 1024,
                lease=settings.host_lease_s,
                context_messages=settings.context_messages,
            ),
        )
        self._metrics = MetricsPage(context.deployment, self._redis)
        registry = self._metrics.registry
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
        await self._host.start()

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        self._host.configure(parse_catalog(user_config))

    async def send(self, send: Send) -> Accepted | Ended | Refused:
        answer = await answered(self._host.send(send))
        self._sends.labels(answer.error if isinstance(answer, Refused) else type(answer).__name__).inc()
        return answer

    async def change(self, change: Change) -> Conversation | Refused:
        return await answered(self._host.change(change))

    async def delete(self, key: ConversationKey) -> Refused | None:
        return await answered(self._host.delete(key))

    async def cancel(self, key: ConversationKey, turn_id: str) -> Refused | None:
        return await answered(self._host.cancel(key, turn_id))

    async def resume(self, key: ConversationKey) -> Refused | None:
        return await answered(self._host.resume(key))

    async def ping(self) -> dict[str, Any]:
        return {"hot": self._host.hot, "unfinished": self._host.unfinished}

    async def __del__(self) -> None:
        await self._host.stop()
        await self._metrics.close()
        await asyncio.gather(self._journal.close(), self._pool.close(), return_exceptions=True)


class HostedLLMReplica:
    """A `HostedLLM` behind a handle."""

    async def __init__(self) -> None:  # type: ignore[misc]
        settings = Settings()
        configure_logging(settings.log_level)
        self._redis = open_redis(settings.required("redis_url"))
        self._journal = RedisJournal(self._redis)
        self._llm = HostedLLM(self._journal, Catalog())
        self._metrics = MetricsPage("HostedLLM", self._redis)
        registry = self._metrics.registry
        Gauge("brain_generations_running", "Generations under way", registry=registry).set_function(
            lambda: self._llm.running
        )
        self._outcomes = Counter(
            "brain_generations", "Generations by model and ending", ["model", "ending"], registry=registry
        )
        self._tokens = Counter("brain_tokens", "Tokens by model and kind", ["model", "kind"], registry=registry)
        self._metrics.start()

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        await self._llm.reconfigure(user_config)

    async def generate(self, request: GenerationRequest) -> Outcome | Refused:
        outcome = await answered(self._llm.generate(request))
        if isinstance(outcome, Outcome) and outcome.ending != "elsewhere":
            model = outcome.model or "none"
            self._outcomes.labels(model, outcome.ending).inc()
            if outcome.usage is not None:
                self._tokens.labels(model, "prompt").inc(outcome.usage.prompt_tokens)
                self._tokens.labels(model, "completion").inc(outcome.usage.completion_tokens)
        return outcome

    async def cancel(self, request: GenerationRequest) -> Refused | None:
        return await answered(self._llm.cancel(request))

    async def ping(self) -> dict[str, Any]:
        return {"running": self._llm.running}

    async def check_health(self) -> None:
        await self._llm.check_health()

    async def __del__(self) -> None:
        await self._llm.close()
        await self._metrics.close()
        await self._journal.close()


class ClassifierReplica:
    """An `IntentClassifier` behind a handle."""

    def __init__(self, embedder: DeploymentHandle) -> None:
        settings = Settings()
        configure_logging(settings.log_level)
        self._classifier = IntentClassifier(HandleEmbedder(embedder), cache=settings.data_folder / "cache")

    async def classify(self, text: str) -> Understanding | Refused:
        return await answered(self._classifier.classify(text))

    async def check_health(self) -> None:
        """Also what makes the head ready before the first message."""
        await self._classifier.check_health()


class EmbedderReplica:
    """An `Embedder` behind a handle."""

    def __init__(self) -> None:
        settings = Settings()
        configure_logging(settings.log_level)
        self._embedder = Embedder(settings.embedder_model)

    async def embed(self, text: str) -> Embedding | Refused:
        return await answered(self._embedder.embed(text))

    async def embed_many(self, texts: Sequence[str]) -> Sequence[Embedding] | Refused:
        return await answered(self._embedder.embed_many(texts))

    async def count_tokens(self, texts: Sequence[str]) -> int | Refused:
        return await answered(self._embedder.count_tokens(texts))

    async def describe(self) -> Any:
        return await answered(self._embedder.describe())

    async def check_health(self) -> None:
        await self._embedder.check_health()
