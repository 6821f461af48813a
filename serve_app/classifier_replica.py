"""The replica of `IntentClassifier`."""

from collections.abc import Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.handles import HandleEmbedder, answered
from deployments.intent_classifier import IntentClassifier
from deployments.tenant_scorers import TenantScorers
from domain.commands import Refused
from domain.ports import HeadInUse, Understanding
from domain.understanding import Example
from serve_app.process import check_process, prepare
from serve_app.settings import Settings
from storage import complexity_scorers
from storage.intent_heads import PostgresHeads
from storage.postgres import open_pool


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
