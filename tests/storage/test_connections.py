"""Connections of the pool when the database does not answer in time."""

from typing import Any

import asyncpg
import pytest

from domain.errors import CommitUnknown, Unavailable
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


class Astray:
    """A pool whose connection lost its way, as asyncpg's may when the server says between two calls that it ends."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.lent: Any = None

    async def acquire(self, **options: Any) -> Any:
        self.lent = await self._pool.acquire(**options)
        return self

    async def release(self, lease: Any, **options: Any) -> None:
        assert lease is self
        await self._pool.release(self.lent, **options)

    def terminate(self) -> None:
        self.lent.terminate()

    async def fetchrow(self, *_: Any) -> None:
        raise asyncpg.InternalClientError("cannot switch to another state")


async def test_a_connection_that_lost_its_way_is_broken_and_is_not_used_again(database_url: str) -> None:
    pool = await open_pool(database_url, 1)
    astray: Any = Astray(pool)
    backends = [await pool.fetchval("SELECT pg_backend_pid()")]
    with pytest.raises(CommitUnknown):
        await call(astray, "SELECT 1")
    backends.append(await pool.fetchval("SELECT pg_backend_pid()"))

    async def ask() -> None:
        async with asking(astray) as lent:
            await lent.fetchrow("SELECT 1")

    with pytest.raises(Unavailable):
        await ask()
    backends.append(await pool.fetchval("SELECT pg_backend_pid()"))
    assert len(set(backends)) == 3
    await pool.close()
