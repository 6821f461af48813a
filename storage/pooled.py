"""Connections behind a pooler that lends a server for one transaction at a time, such as PgBouncer in transaction mode.

Nothing of a session may be relied on: no role, no search path, no prepared statement. A statement with arguments is
prepared and run by two messages, between which such a pooler may change the server, so it stands in a transaction.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from domain.errors import Unavailable

SETTINGS = {"application_name": "brain"}  # PgBouncer follows this one from client to client
GROUP = "brain_app"
_RIGHTS = f"""
SELECT current_user AS login,
    pg_has_role(current_user, to_regrole('{GROUP}'), 'USAGE') AS serves,
    ARRAY(
        SELECT rolname::text FROM pg_roles WHERE (rolsuper OR rolbypassrls OR oid IN (
            SELECT nspowner FROM pg_namespace WHERE nspname = 'brain'
            UNION SELECT relowner FROM pg_class WHERE relnamespace = to_regnamespace('brain')
            UNION SELECT proowner FROM pg_proc WHERE pronamespace = to_regnamespace('brain')
        )) AND pg_has_role(current_user, oid, 'MEMBER')
    ) AS beyond
"""


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


async def check_rights(connection: Any) -> None:
    """Raises `Unavailable` unless the login has the rights of `brain_app`, and no way to have more.

    Without a pooler the role is taken instead, and what else the login may do is out of reach of each statement.
    """
    found = await connection.fetchrow(_RIGHTS)
    if not found["serves"]:
        raise Unavailable(f"the login {found['login']} does not inherit {GROUP}: GRANT {GROUP} TO {found['login']}")
    if found["beyond"]:
        raise Unavailable(
            f"the login {found['login']} may act as {', '.join(found['beyond'])}: behind a pooler the service refuses"
            f" to run with more rights than {GROUP}; give it a login of its own"
        )
