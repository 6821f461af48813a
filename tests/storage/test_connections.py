"""Connections of the pool when the database does not answer in time."""

from typing import Any

import pytest

from domain.errors import Unavailable
from storage.postgres import Pool, asking, call, open_pool


class Stubborn:
    """A pool that takes a connection back but does not hear so in time, as from a server that stood still."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def acquire(self, **options: Any) -> Any:
        return await self._pool.acquire(**options)

    async def release(self, lease: Any, **options: Any) -> None:
        await self._pool.release(lease, **options)
        raise TimeoutError


async def test_a_connection_that_is_not_given_back_in_time_costs_no_answer(pool: Pool) -> None:
    stubborn: Any = Stubborn(pool)
    assert (await call(stubborn, "SELECT 1 AS one"))["one"] == 1


async def test_a_connection_that_breaks_while_it_is_asked_is_unavailable(pool: Pool) -> None:
    async def ask() -> None:
        async with asking(pool) as lent:
            lent.terminate()
            await lent.fetchval("SELECT 1")

    with pytest.raises(Unavailable):
        await ask()


async def test_behind_a_pooler_a_login_that_may_do_more_is_refused(database_url: str) -> None:
    with pytest.raises(Unavailable, match="owner"):
        await open_pool(database_url, 1, pooled=True)
