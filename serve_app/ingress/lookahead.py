"""Reading an iteration a little ahead of the one who consumes it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Lookahead(Generic[T]):
    """`source`, of which items may be seen before they are consumed; nothing is lost or given twice."""

    def __init__(self, source: AsyncIterator[T]) -> None:
        self._source: Any = source
        self._seen: list[T] = []
        self._coming: asyncio.Future[T] | None = None

    async def until(self, enough: Callable[[T], bool], patience: float) -> list[T]:
        """What has come once an item is `enough`, the source has ended, or `patience` seconds have gone by."""
        deadline = asyncio.get_running_loop().time() + patience
        while not (self._seen and enough(self._seen[-1])):
            self._coming = self._coming or asyncio.ensure_future(anext(self._source))
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.wait((self._coming,), timeout=max(left, 0))
            if not self._coming.done() or self._coming.exception() is not None:
                break
            self._seen.append(self._coming.result())
            self._coming = None
        return self._seen

    async def items(self) -> AsyncIterator[T]:
        """Every item of the source, in order. To be closed with `close`."""
        for item in self._seen:
            yield item
        if self._coming is not None:
            try:
                yield await self._coming
            except StopAsyncIteration:
                return
        async for item in self._source:
            yield item

    async def close(self) -> None:
        """Close the source, also where nobody consumed it."""
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.wait((self._coming,))
        await self._source.aclose()
