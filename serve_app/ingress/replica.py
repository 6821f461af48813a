"""The ingress as Ray Serve runs it."""

from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.handles import HandleEmbedder, HandleHosts, HandleLanguageModel, ask
from domain.model import Catalog, parse_catalog
from serve_app.ingress import metrics
from serve_app.ingress.app import create_app
from serve_app.ingress.logs import configure_logging
from serve_app.ingress.parts import IngressSettings, Parts
from serve_app.replica_metrics import MetricsPage
from serve_app.settings import Settings
from storage.follower import RedisFollower
from storage.postgres import open_pool
from storage.reader import PostgresReader
from storage.redis import open_redis


@serve.ingress()
class IngressReplica:
    """One replica: opens its own connections, and serves `create_app` over them."""

    async def __init__(
        self, host: DeploymentHandle, llm: DeploymentHandle, embedder: DeploymentHandle, classifier: DeploymentHandle
    ) -> None:
        settings = Settings()
        configure_logging(settings.log_level)
        self._pool = await open_pool(settings.required("database_url"), settings.database_connections)
        self._redis = open_redis(settings.required("redis_url"))
        self._follower = RedisFollower(self._redis, open_redis(settings.required("redis_url")))
        self._metrics = MetricsPage("Ingress", self._redis)
        self._metrics.registry.register(metrics.REGISTRY)
        reader = PostgresReader(self._pool)
        self._parts = Parts(
            reader=reader,
            hosts=HandleHosts(host),
            follower=self._follower,
            llm=HandleLanguageModel(llm),
            embedder=HandleEmbedder(embedder),
            catalog=Catalog(),
            metrics=self._page,
            checks={
                "postgres": reader.ping,
                "redis": self._redis.ping,
                "conversation_host": _ping(host),
                "hosted_llm": _ping(llm),
                "intent_classifier": _ping(classifier),
                "embedder": _describe(embedder),
            },
            settings=IngressSettings(version=_version(), server_adds_request_id=True),
        )
        self._metrics.start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._parts)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        self._parts.catalog = parse_catalog(user_config)

    async def __del__(self) -> None:
        await self._follower.close()
        await self._metrics.close()
        await self._redis.aclose()
        await self._pool.close()

    async def _page(self) -> str:
        return (await self._metrics.merged()).decode()


def _ping(handle: DeploymentHandle) -> Callable[[], Awaitable[object]]:
    return lambda: ask(lambda: handle.ping.remote())


def _describe(handle: DeploymentHandle) -> Callable[[], Awaitable[object]]:
    return lambda: ask(lambda: handle.describe.remote())


def _version() -> str:
    try:
        return version("chat-brain")
    except PackageNotFoundError:
        return "0"
