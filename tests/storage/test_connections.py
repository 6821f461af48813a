"""Connections of the pool when the database does not answer in time."""

from typing import Any

from storage.postgres import Pool, call


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
