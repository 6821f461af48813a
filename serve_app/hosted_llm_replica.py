"""The replica of `HostedLLM`."""

from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.providers.vllm import HandleEngine
from serve_app.generating import Generating, RunsGenerations
from serve_app.process import check_process, prepare
from serve_app.settings import Settings


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
