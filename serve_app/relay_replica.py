"""What runs in each replica of the relay: what carries events and messages out of the service, and messages in.

Its work comes from the database, so several of them may stand beside each other, and one that dies loses nothing.
"""

import asyncio
from typing import Any, Protocol

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.handles import HandleHosts
from serve_app.deliveries import Deliveries
from serve_app.event_relay_worker import event_relay
from serve_app.process import check_process, prepare
from serve_app.replica_metrics import MetricsPage
from serve_app.service_channels import service_channel
from serve_app.settings import Settings
from storage.compatibility import check_pool
from storage.postgres import open_pool
from storage.redis import open_redis


class Worker(Protocol):
    """Work that goes on from `start` to `close`. `close` may be called without `start`."""

    def start(self) -> None: ...

    async def close(self) -> None: ...


class RelayReplica:
    """Holds the workers for as long as the replica lives."""

    async def __init__(self, host: DeploymentHandle) -> None:  # type: ignore[misc]
        settings = Settings()
        prepare(settings.log_level)
        self._pool = await open_pool(settings.required("database_url"), 8, 0, settings.database_pooled)
        await check_pool(self._pool)
        self._redis = open_redis(settings.required("redis_url"))
        self._hosts = HandleHosts(host)
        self._metrics = MetricsPage(serve.get_replica_context().deployment, self._redis)
        keys, allowed = settings.master_keys, settings.outgoing
        service = service_channel(self._pool, keys, allowed, settings.required("redis_url"))
        self._deliveries = Deliveries(self._pool, keys, allowed, self._hosts, [service])
        self._deliveries.show(self._metrics.registry)
        events = event_relay(settings, self._pool, self._metrics.registry)
        self._workers: list[Worker] = [events, self._deliveries]
        self._metrics.start()
        for worker in self._workers:
            worker.start()

    async def ping(self) -> dict[str, Any]:
        """Raises `Unavailable` where a worker does not do its work."""
        self._deliveries.check()
        return {"workers": len(self._workers)}

    async def check_health(self) -> None:
        check_process()
        if self._deliveries.ended:
            self._deliveries.check()

    async def __del__(self) -> None:
        await asyncio.gather(*(worker.close() for worker in self._workers), return_exceptions=True)
        await self._metrics.close()
        await asyncio.gather(self._pool.close(), self._redis.aclose(), return_exceptions=True)
