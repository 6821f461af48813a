"""The caches of one replica by name: an operator sees them, and flushes one in every replica."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from domain.caching import Flushable
from storage.access import AccessChange

FLUSHED = "cache"  # the kind of change that tells of a flush


class Caches:
    """`named` may grow while parts are put together."""

    def __init__(self, named: Mapping[str, Flushable] | None = None) -> None:
        self.named: dict[str, Flushable] = dict(named or {})

    async def heard(self, changes: list[AccessChange] | None) -> None:
        """A listener of `AccessWatch`. A shared cache is flushed by whoever was asked to, not by all who hear of it."""
        flushed = None if changes is None else {one.subject for one in changes if one.kind == FLUSHED}
        for name, cache in self.named.items():
            if not cache.shared and (flushed is None or name in flushed):
                await cache.flush()


class CacheCollector(Collector):
    """The caches' figures for Prometheus, read when a page is made: the paths that use them pay nothing for it."""

    def __init__(self, caches: Caches, registry: CollectorRegistry | None = None) -> None:
        self._caches = caches
        if registry is not None:
            registry.register(self)

    def collect(self) -> list[Metric]:
        hits = CounterMetricFamily("brain_cache_hits", "Answers from a cache.", labels=["cache"])
        misses = CounterMetricFamily("brain_cache_misses", "What a cache did not have.", labels=["cache"])
        evicted = CounterMetricFamily("brain_cache_evicted", "Entries that made room for others.", labels=["cache"])
        entries = GaugeMetricFamily("brain_cache_entries", "What a cache keeps.", labels=["cache"])
        for name, cache in self._caches.named.items():
            told = cache.statistics
            hits.add_metric([name], told.hits)
            misses.add_metric([name], told.misses)
            evicted.add_metric([name], told.evicted)
            if told.entries is not None:
                entries.add_metric([name], told.entries)
        return [hits, misses, evicted, entries]
