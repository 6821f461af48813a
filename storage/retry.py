"""Trying a call of the database again: only for what may happen twice."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from domain.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")

PAUSES = (0.05, 0.2)  # seconds before the second and the third try


def again(call: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """`call`, made up to three times while it raises `Unavailable`."""

    @wraps(call)
    async def patient(*args: P.args, **kwargs: P.kwargs) -> T:
        for pause in PAUSES:
            try:
                return await call(*args, **kwargs)
            except Unavailable:
                await asyncio.sleep(pause)
        return await call(*args, **kwargs)

    return patient
