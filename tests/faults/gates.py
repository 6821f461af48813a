"""A pool of connections on which a host can be paused before, inside and after each writing call."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, cast

import asyncpg

from storage.postgres import Pool
from tests.faults.interleaving import Interleaving, Point

_UNKNOWN = count(-1, -1)  # in place of a server process: a host has work, and which one will do it is not known yet
_CALL = re.compile(r"brain\.(\w+)\(")


class GatedPool:
    """What `storage.postgres` asks of a pool, for one host in one run. Reads are not paused: they change nothing."""

    def __init__(self, pool: Pool, run: Interleaving, host: str) -> None:
        self._pool, self._run, self._host = pool, run, host

    async def acquire(self, timeout: float) -> "GatedConnection":  # noqa: ASYNC109 (asyncpg's name)
        waits = next(_UNKNOWN)
        self._run.works(waits)
        try:
            return GatedConnection(await self._pool.acquire(timeout=timeout), self._run, self._host)
        finally:
            self._run.rests(waits)

    async def release(self, lease: "GatedConnection", timeout: float) -> None:  # noqa: ASYNC109
        try:
            await self._pool.release(lease.real, timeout=timeout)
        finally:
            lease.rests()


class GatedConnection:
    def __init__(self, real: Any, run: Interleaving, host: str) -> None:
        self.real, self._run, self._host = real, run, host
        self._process = next(_UNKNOWN)
        self._reads = False
        run.works(self._process)

    def rests(self) -> None:
        self._run.rests(self._process)

    def transaction(self) -> Any:
        self._reads = True
        return self.real.transaction()

    async def execute(self, sql: str, *args: Any) -> Any:
        return await self.real.execute(sql, *args)

    async def fetch(self, sql: str, *args: Any) -> Any:
        return await self.real.fetch(sql, *args)

    async def fetchrow(self, sql: str, *args: Any) -> Any:
        found = _CALL.search(sql)
        if self._reads or found is None:
            return await self.real.fetchrow(sql, *args)
        call = found[1]
        claim = None if call == "activate" else (args[2], args[3])
        await self._pause(Point.BEFORE, call, claim)
        async with self.real.transaction(), self._server():
            row = await self.real.fetchrow(sql, *args)
            await self._pause(Point.INSIDE, call, claim)
        await self._pause(Point.AFTER, call, claim)
        return row

    @asynccontextmanager
    async def _server(self) -> AsyncIterator[None]:
        """The process of this transaction is asked for: a pooler lends another one each time, and tells none."""
        unknown, known = self._process, await self.real.fetchval("SELECT pg_backend_pid()")
        self._becomes(known)
        try:
            yield
        finally:
            self._becomes(unknown)

    def _becomes(self, process: int) -> None:
        self._run.works(process)
        self._run.rests(self._process)
        self._process = process

    async def _pause(self, point: Point, call: str, claim: tuple[int, str] | None) -> None:
        await self._run.pause(self._host, point, call, claim, self._process)


def gated(pool: Pool, run: Interleaving, host: str) -> Pool:
    return cast(asyncpg.Pool, GatedPool(pool, run, host))
