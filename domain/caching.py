"""What may be forgotten at any time: caches, as the rest of the service and an operator see them."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """Since this process began. `entries`: what is kept now, None where counting it would be dear; `bound`: the most
    that is kept, None where the store has a bound of its own; `evicted`: entries that made room for others."""

    hits: int = 0
    misses: int = 0
    evicted: int = 0
    entries: int | None = None
    bound: int | None = None


class Flushable(Protocol):
    """Something that remembers. `shared`: replicas have it in common, so one flush is enough."""

    @property
    def shared(self) -> bool: ...

    @property
    def statistics(self) -> CacheStatistics: ...

    async def flush(self) -> None:
        """Forget all of it: what was put before is not given any more. Raises `Unavailable`."""
        ...


class Cache(Flushable, Protocol):
    """Bytes by tenant and key, each for a time. What is not there any more, or cannot be reached, is None."""

    async def get(self, tenant: str, key: str) -> bytes | None: ...

    async def put(self, tenant: str, key: str, value: bytes, ttl: float) -> None:
        """Keep `value` for `ttl` seconds, if there is room; it may be lost before."""
        ...

    async def forget(self, tenant: str, key: str) -> None:
        """Raises `Unavailable`: it may still be given then."""
        ...
