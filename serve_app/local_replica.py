"""What runs in each replica of a local model: vLLM, and the generations that begin with this model.

Their text goes from the engine straight to the journal. Imported only where vLLM and `ray.serve.llm` are installed.
"""

import logging
import os
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from ray import serve
from ray.serve.llm import LLMConfig

from deployments.autoscaling import WAITING
from deployments.local_llm import deployment_name, local_models
from deployments.local_server import LocalLLM
from deployments.providers.vllm import Asked, Engine, Fault, HandleEngine
from domain.model import Catalog
from serve_app.generating import Generating, RunsGenerations
from serve_app.process import check_process, prepare
from serve_app.settings import Settings

log = logging.getLogger("brain.local")


class LocalLLMReplica(RunsGenerations, LocalLLM):
    """A `LocalLLM` that also is a `LanguageModel`. `answer` stays for generations that run elsewhere."""

    async def __init__(self, llm_config: LLMConfig, *, adapters: Mapping[str, str] | None = None) -> None:  # type: ignore[misc]
        await super().__init__(llm_config, adapters=adapters)
        prepare(Settings().log_level)
        self._model: str = llm_config.model_id
        self._engines: dict[str, Engine] = {self._model: OwnEngine(self)}
        name = serve.get_replica_context().deployment
        generating = Generating(name, self._engines, self._seen, eager=True)
        generating.llm.failing = self._die_with_the_engine
        await generating.start()
        self._generating = generating

    async def ping(self) -> dict[str, Any]:
        return {**await super().ping(), "generations": self._generating.llm.running}

    async def check_health(self) -> None:
        check_process()
        await super().check_health()
        await self._generating.llm.check_health()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """The engine's, and who waits in front of it."""
        told = await super().record_autoscaling_stats()
        return {**told, WAITING: told[WAITING] + self._generating.waiting} if told else told

    async def __del__(self) -> None:
        try:
            if hasattr(self, "_generating"):  # else the start has failed
                await self._generating.close()
        finally:
            await super().__del__()

    def _die_with_the_engine(self) -> None:
        """At once, before the failure is told: so that the turns' owners see a lost process, and begin again or go on
        where there is an engine. Serve would end this replica too, some health checks later."""
        if self.engine_is_dead:
            log.critical("the engine of %s has died, and this replica with it", self._model)
            os._exit(1)

    def _seen(self, catalog: Catalog) -> Catalog:
        """Other local models are reached by their handles; this one takes so many calls at once."""
        application = serve.get_replica_context().app_name
        for model in local_models(catalog):
            if model.id in self._engines:
                continue
            try:
                handle = serve.get_deployment_handle(deployment_name(model), application)
            except KeyError:
                log.warning("the model %s has no deployment yet", model.id)
            else:
                self._engines[model.id] = HandleEngine(handle)
        return bounded(catalog, self._model)


class OwnEngine:
    """The engine in this process."""

    def __init__(self, server: LocalLLM) -> None:
        self._server = server

    def answer(self, asked: Asked, session: str) -> AsyncGenerator[list[str | Fault], None]:
        return self._server.answer(asked)


def bounded(catalog: Catalog, model_id: str) -> Catalog:
    """With as many places for the local model as one replica has; who waits for them is served fairly among tenants."""
    route = catalog.find(model_id)
    if route is None or route.model.vllm is None:
        return catalog
    places = route.model.vllm.max_ongoing_requests
    model = route.model.model_copy(update={"concurrency": min(places, route.model.concurrency or places)})
    models = [model if one.id == model_id else one for one in route.provider.models]
    provider = route.provider.model_copy(update={"models": models})
    providers = [provider if one.name == provider.name else one for one in catalog.providers]
    return catalog.model_copy(update={"providers": providers})
