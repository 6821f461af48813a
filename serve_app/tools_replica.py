"""What runs in each replica that calls tools. It holds no state of a turn: one that dies costs the calls at hand."""

import asyncio
from typing import Any

from ray import serve

from adapters.guarded_http import Guarded
from adapters.mcp_servers import McpServers
from deployments.handles import answered
from domain.acting import acting_for
from domain.commands import Refused
from domain.tools import ToolAnswer, ToolServer
from serve_app.process import check_process, prepare
from serve_app.replica_metrics import MetricsPage
from serve_app.settings import Settings
from serve_app.tool_metrics import ToolMetrics
from serve_app.tool_service import ToolService
from storage.compatibility import check_pool
from storage.postgres import open_pool
from storage.redis import open_redis
from storage.tool_servers import PostgresToolServers


class ToolsReplica:
    async def __init__(self) -> None:  # type: ignore[misc]
        settings = Settings()
        prepare(settings.log_level)
        self._pool = await open_pool(settings.required("database_url"), 4, 0, settings.database_pooled)
        await check_pool(self._pool)
        self._redis = open_redis(settings.required("redis_url"))
        self._metrics = MetricsPage(serve.get_replica_context().deployment, self._redis)
        self._told = ToolMetrics(self._metrics.registry)
        servers = McpServers(Guarded(settings.outgoing))
        self._service = ToolService(PostgresToolServers(self._pool), settings.master_keys, servers)
        self._metrics.start()

    async def call(
        self, tenant: str, server: str, tool: str, arguments: dict[str, Any], key: str, seconds: float
    ) -> ToolAnswer | Refused:
        with acting_for(tenant):
            return await answered(self._told.timed(self._service.call(tenant, server, tool, arguments, key, seconds)))

    async def refresh(self, tenant: str, server: str) -> ToolServer | Refused:
        with acting_for(tenant):
            return await answered(self._service.refresh(tenant, server))

    async def ping(self) -> dict[str, Any]:
        return {}

    async def check_health(self) -> None:
        check_process()

    async def __del__(self) -> None:
        await self._metrics.close()
        await asyncio.gather(self._service.close(), self._pool.close(), self._redis.aclose(), return_exceptions=True)
