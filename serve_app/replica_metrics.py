"""Prometheus metrics of all replicas on one page.

Each replica publishes its own page to Redis every few seconds; whoever is asked merges them, each sample labelled with
its deployment and replica, so that a scrape through a load balancer sees the whole service.
"""

import asyncio
import logging
import uuid

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis
from redis.exceptions import RedisError

log = logging.getLogger("brain.metrics")
KEY = "brain:metrics"
LIFETIME = 15  # seconds that a page counts after its replica's last word


class MetricsPage:
    """One replica's registry, and the pages of the others."""

    def __init__(
        self, deployment: str, redis: Redis, registry: CollectorRegistry | None = None, interval: float = 3.0
    ) -> None:
        self.registry = registry or CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._name = f"{deployment}/{uuid.uuid4().hex[:8]}"
        self._redis, self._interval = redis, interval
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._publish())

    async def merged(self) -> bytes:
        """All replicas' samples in Prometheus text; only this replica's own while Redis is away."""
        pages = {self._name: generate_latest(self.registry)}
        try:
            keys = [key async for key in self._redis.scan_iter(match=f"{KEY}:*", count=500)]
            found = await self._redis.mget(keys) if keys else []
            pages |= {
                key.decode().removeprefix(f"{KEY}:"): page
                for key, page in zip(keys, found, strict=True)
                if page is not None and key.decode() != f"{KEY}:{self._name}"
            }
        except (RedisError, OSError, TimeoutError):
            log.warning("Redis is away: only this replica's metrics are told")
        return await asyncio.to_thread(_merge, pages)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _publish(self) -> None:
        while True:
            try:
                await self._redis.set(f"{KEY}:{self._name}", generate_latest(self.registry), ex=LIFETIME)
            except (RedisError, OSError, TimeoutError):
                log.debug("the metrics page was not published")
            await asyncio.sleep(self._interval)


def _merge(pages: dict[str, bytes]) -> bytes:
    families: dict[str, Metric] = {}
    for name, page in sorted(pages.items()):
        deployment, _, replica = name.partition("/")
        for family in text_string_to_metric_families(page.decode()):
            merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                labels = {**sample.labels, "deployment": deployment, "replica": replica}
                merged.add_sample(sample.name, labels, sample.value)
    return generate_latest(_Families(list(families.values())))


class _Families(CollectorRegistry):
    """Families that exist already, in the shape that the text format wants."""

    def __init__(self, families: list[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families
