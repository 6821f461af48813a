"""Connections behind a pooler that lends a server for one transaction at a time, such as PgBouncer in transaction mode.

Nothing of a session may be relied on: no role, no search path, no prepared statement. A statement with arguments is
prepared and run by two messages, between which such a pooler may change the server, so it stands in a transaction.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

SETTINGS = {"application_name": "brain"}  # PgBouncer follows this one from client to client


class Pooled(asyncpg.Connection):
    """Each statement with arguments is a transaction, or part of one; inside, the server stays the same."""

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        async with self._one_server():
            return await super().fetch(query, *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        async with self._one_server():
            return await super().fetchrow(query, *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        async with self._one_server():
            return await super().fetchval(query, *args, **options)

    async def execute(self, query: str, *args: Any, **options: Any) -> Any:
        if not args:  # one message
            return await super().execute(query, **options)
        async with self._one_server():
            return await super().execute(query, *args, **options)

    @asynccontextmanager
    async def _one_server(self) -> AsyncIterator[None]:
        if self.is_in_transaction():
            yield
        else:
            async with self.transaction():
                yield
