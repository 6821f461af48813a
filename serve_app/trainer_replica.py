"""The replica of `IntentTrainer`."""

from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.handles import HandleEmbedder
from deployments.intent_trainer import IntentTrainer
from serve_app.process import check_process, prepare
from serve_app.settings import Settings
from storage.compatibility import check_pool
from storage.intent_heads import PostgresHeads
from storage.intent_trainings import PostgresTrainings
from storage.postgres import open_pool


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
