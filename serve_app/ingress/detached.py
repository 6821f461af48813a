"""Work that outlives the request that started it."""

import asyncio
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar

from domain.errors import BrainError

T = TypeVar("T")

_running: set[asyncio.Task[None]] = set()


def detach(call: Awaitable[object]) -> None:
    """Run `call` to its end, whatever becomes of the caller; a domain error in it concerns nobody any more."""
    task = asyncio.create_task(_quietly(call))
    _running.add(task)
    task.add_done_callback(_running.discard)


def apart(call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run `call` outside of the request's context: Serve cancels what a request has called when its client leaves."""
    return asyncio.get_running_loop().create_task(call, context=Context())


async def _quietly(call: Awaitable[object]) -> None:
    with suppress(BrainError):
        await call
