"""Work that outlives the request that started it."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress

from domain.errors import BrainError

_running: set[asyncio.Task[None]] = set()


def detach(call: Awaitable[object]) -> None:
    """Run `call` to its end, whatever becomes of the caller; a domain error in it concerns nobody any more."""
    task = asyncio.create_task(_quietly(call))
    _running.add(task)
    task.add_done_callback(_running.discard)


async def _quietly(call: Awaitable[object]) -> None:
    with suppress(BrainError):
        await call
