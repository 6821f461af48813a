"""What every replica that runs generations holds, whichever models it calls and however: its `HostedLLM`."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from deployments.handles import answered
from deployments.hosted_llm import HostedLLM
from deployments.policies import observe
from deployments.providers import Wire
from deployments.providers.anthropic import AnthropicWire
from deployments.providers.http import HttpPool
from deployments.providers.openai import OpenAIWire
from deployments.providers.scripted import ScriptedWire
from deployments.providers.vllm import Engine, VllmWire
from domain.commands import Refused
from domain.generation import GenerationRequest, Outcome
from domain.model import Catalog, parse_catalog
from serve_app.catalog_watch import CatalogWatch
from serve_app.generation_metrics import GenerationMetrics
from serve_app.provider_keys import open_keys
from serve_app.replica_metrics import MetricsPage
from serve_app.settings import Settings
from storage.breakers import RedisBreakers
from storage.catalog import PostgresCatalog
from storage.journal import RedisJournal
from storage.postgres import open_pool
from storage.redis import open_redis


class Generating:
    """`deployment` names this replica's metrics; `engines` are those of local models, by id. Call `start` first.

    `seen` may change the catalog for this replica. `eager`: see `HostedLLM`.
    """

    def __init__(
        self,
        deployment: str,
        engines: Mapping[str, Engine],
        seen: Callable[[Catalog], Catalog] = lambda catalog: catalog,
        eager: bool = False,
    ) -> None:
        self._settings = Settings()
        self._redis = open_redis(self._settings.required("redis_url"))
        self._journal = RedisJournal(self._redis)
        self._breakers = RedisBreakers(self._redis)
        self._seen = seen
        pool = HttpPool(observe)
        wires: dict[str, Wire] = {
            "openai": OpenAIWire(pool),
            "anthropic": AnthropicWire(pool),
            "scripted": ScriptedWire(),
            "vllm": VllmWire(engines),
        }
        self.llm = HostedLLM(self._journal, Catalog(), wires=wires, breakers=self._breakers, eager=eager)
        keys = self._settings.master_keys
        self.llm.opens = lambda catalog: open_keys(keys, catalog)
        self._metrics = MetricsPage(deployment, self._redis)
        self.llm.told = GenerationMetrics(self.llm, self._metrics.registry).told

    async def start(self) -> None:
        self._pool = await open_pool(self._settings.required("database_url"), 1, 0, self._settings.database_pooled)
        self._watch = CatalogWatch(PostgresCatalog(self._pool), self._use)
        self._breakers.start()
        self._metrics.start()

    @property
    def waiting(self) -> int:
        """How many calls wait for a place at their model."""
        return sum(self.llm.policies.at_most.waiting.values())

    async def configure(self, user_config: dict[str, Any]) -> None:
        await self._watch.configure(parse_catalog(user_config))

    async def generate(self, request: GenerationRequest) -> Outcome | Refused:
        await self._watch.knows(request.model)
        return await answered(self.llm.generate(request))

    async def cancel(self, request: GenerationRequest) -> Refused | None:
        return await answered(self.llm.cancel(request))

    async def close(self) -> None:
        await self.llm.close()
        await self._watch.close()
        await self._breakers.close()
        await self._metrics.close()
        await asyncio.gather(self._journal.close(), self._pool.close(), return_exceptions=True)

    async def _use(self, catalog: Catalog) -> None:
        await self.llm.reconfigure(self._seen(catalog).model_dump(mode="json", by_alias=True))


class RunsGenerations:
    """The methods of such a replica that others call over a handle."""

    _generating: Generating

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        await self._generating.configure(user_config)

    async def generate(self, request: GenerationRequest) -> Outcome | Refused:
        return await self._generating.generate(request)

    async def cancel(self, request: GenerationRequest) -> Refused | None:
        return await self._generating.cancel(request)
