"""The pool of connections, and the one place where the driver's errors become the domain's."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import asyncpg
import orjson

from domain.errors import CommitUnknown, ConversationBusy, ConversationEnded, Fenced, NotFound, Unavailable
from storage import pooled as behind
from storage import rights

Pool = asyncpg.Pool
Connection = asyncpg.pool.PoolConnectionProxy

_REFUSALS: dict[str, type[Exception]] = {
    "BR404": NotFound,
    "BR409": ConversationEnded,
    "BRBSY": ConversationBusy,
    "BRFEN": Fenced,
}
_LOST = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the driver lost its way, as it may where the server goes away in mid-answer
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
)
_NOT_DONE = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.ReadOnlySQLTransactionError)


async def open_pool(url: str, size: int, min_size: int = 1, pooled: bool = False) -> Pool:
    """A pool of at most `size` connections with the rights of `brain_app`, which bypasses nothing.

    A login that no row-level security binds is refused (`Unavailable`). `pooled`: a pooler in transaction mode answers
    at `url`; rights come by inheritance then, and a login with any more is refused. It opens although the server is
    away: the first calls then raise `Unavailable`.
    """
    try:
        return await _pool(url, size, min_size, pooled)
    except _LOST:
        return await _pool(url, size, 0, pooled)


def _pool(url: str, size: int, min_size: int, pooled: bool) -> Pool:
    if pooled:
        options: dict[str, Any] = {
            "connection_class": behind.Pooled,
            "statement_cache_size": 0,
            "server_settings": behind.SETTINGS,
            "init": _prepare_pooled,
        }
    else:
        settings = {"role": rights.GROUP, "search_path": "brain", "application_name": "brain", "jit": "off"}
        options = {"server_settings": settings, "init": _prepare_direct}
    pool: Pool = asyncpg.create_pool(
        url,
        min_size=min_size,
        max_size=size,
        timeout=5,
        command_timeout=10,
        max_inactive_connection_lifetime=300,
        reset=_keep,
        **options,
    )
    return pool


async def _keep(connection: Any) -> None:
    """Nothing to reset: all that is set is set for a transaction. Spares a round trip a call."""


async def _prepare(connection: Any) -> None:
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=lambda v: orjson.dumps(v).decode(), decoder=orjson.loads
    )


async def _prepare_direct(connection: Any) -> None:
    await rights.check_direct(connection)
    await _prepare(connection)


async def _prepare_pooled(connection: Any) -> None:
    await rights.check_pooled(connection)
    await _prepare(connection)


@asynccontextmanager
async def connection(pool: Pool) -> AsyncIterator[Connection]:
    """A connection for one call. Raises `Unavailable` where none can be had: nothing was sent then."""
    try:
        lease = await pool.acquire(timeout=5)
    except _LOST as error:
        raise Unavailable("the database cannot be reached") from error
    try:
        yield lease
    except Exception as error:
        if isinstance(error.__cause__ or error, asyncpg.InternalClientError):
            lease.terminate()  # what it would read next may be another call's
        raise
    finally:
        try:
            await pool.release(lease, timeout=5)
        except _LOST:
            with suppress(asyncpg.InterfaceError):  # the pool has taken it back, and ends it itself
                lease.terminate()


async def call(pool: Pool, sql: str, *args: Any, within: float | None = None) -> Any:
    """Run one writing statement, which is its own transaction, and give its row. `within`: seconds, where it may take
    longer than others.

    Raises the domain's refusals; `Unavailable` where nothing was written; `CommitUnknown` where nobody can tell.
    """
    async with connection(pool) as lease:
        try:
            options: dict[str, Any] = {} if within is None else {"timeout": within}
            return await lease.fetchrow(sql, *args, **options)
        except asyncpg.DataError:
            raise  # of the caller's making, also where the driver found it
        except asyncpg.PostgresConnectionError as error:
            raise CommitUnknown("the connection to the database broke during a commit") from error
        except asyncpg.PostgresError as error:
            raise _translate(error) from error
        except _LOST as error:
            raise CommitUnknown("the connection to the database broke during a commit") from error


@asynccontextmanager
async def asking(pool: Pool) -> AsyncIterator[Connection]:
    """A connection for statements that name no tenant and may be made again. Raises `Unavailable` where it broke."""
    async with connection(pool) as lease:
        with _translated():
            yield lease


@asynccontextmanager
async def reading(pool: Pool, tenant: str) -> AsyncIterator[Connection]:
    """A transaction of one tenant; row-level security shows it that tenant's rows alone."""
    async with asking(pool) as lease, lease.transaction():
        await lease.execute("SELECT set_config('brain.tenant', $1, true)", tenant)
        yield lease


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _translate(error) from error
    except _LOST as error:
        raise Unavailable("the connection to the database broke") from error


def _translate(error: asyncpg.PostgresError) -> Exception:
    refusal = _REFUSALS.get(error.sqlstate or "")
    if refusal is not None:
        return refusal()
    if isinstance(error, (*_NOT_DONE, *_LOST)):
        return Unavailable("the database is not available now")
    return error
