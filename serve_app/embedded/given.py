"""Servers that were given by URL: checked before anything starts, so that a wrong one is told in one line."""

from urllib.parse import urlsplit

import asyncpg
from redis import asyncio as aioredis
from redis.exceptions import RedisError

from serve_app.embedded.refusal import Refusal
from serve_app.settings import Settings, variable


def place(url: str) -> str:
    """A URL without its password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or '?'}{f':{parts.port}' if parts.port else ''}{parts.path}"


async def check_database(variable: str, url: str) -> None:
    """Raises `Refusal` unless a PostgreSQL answers there."""
    if urlsplit(url).scheme not in ("postgresql", "postgres"):
        raise Refusal(f"{variable} must look like postgresql://user:password@host:5432/database")
    try:
        connection = await asyncpg.connect(url, timeout=10)
    except (OSError, ValueError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Refusal(f"{variable}: no connection to {_safe_place(url)} ({_reason(error)}): correct the URL") from None
    await connection.close()


async def check_service(variable: str, url: str, pooled: bool) -> None:
    """Raises `Refusal` unless replicas can serve with this login: it has the rights of `brain_app`."""
    from domain.errors import Unavailable
    from storage.postgres import open_pool

    try:
        pool = await open_pool(url, 1, pooled=pooled)
        try:
            await pool.fetchval("SELECT 1")
        finally:
            pool.terminate()
    except (OSError, TimeoutError, Unavailable, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Refusal(f"{variable}: the service cannot work at {_safe_place(url)} ({_reason(error)})") from None


async def check_redis(variable: str, url: str) -> None:
    """Raises `Refusal` unless a Redis answers there."""
    try:
        async with aioredis.from_url(url, socket_connect_timeout=5, socket_timeout=5) as client:
            await client.ping()
    except (TimeoutError, OSError, ValueError, RedisError) as error:
        raise Refusal(f"{variable}: no connection to {_safe_place(url)} ({_reason(error)}): correct the URL") from None


def check_vectors(variable: str, url: str, key: str | None) -> None:
    """Raises `Refusal` for a URL that names no kind of store. Whether it answers is not asked: turns go on without."""
    from domain.vectors import Space
    from storage.vectors import open_vectors

    if "://" not in url:
        return  # a folder
    try:
        open_vectors(url, Space("check", "", 1), key)
    except ValueError as error:
        raise Refusal(f"{variable}: {error}") from None


def check_embedder(settings: Settings) -> None:
    """Raises `Refusal` where the embedder cannot run in the precision that is asked for, as far as a look tells."""
    from serve_app.embedders import check

    try:
        check(settings)
    except ValueError as error:
        raise Refusal(f"{variable('embedder_precision')}: {error}") from None


async def say_draining(url: str) -> None:
    """Tell every ingress that this start is ending: readiness turns 503, so that balancers look elsewhere."""
    async with aioredis.from_url(url, socket_connect_timeout=1, socket_timeout=1) as client:
        await client.set("brain:draining", "1", ex=60)


async def say_serving(url: str) -> None:
    """Take back what an earlier stop said."""
    async with aioredis.from_url(url, socket_connect_timeout=5, socket_timeout=5) as client:
        await client.delete("brain:draining")


def _safe_place(url: str) -> str:
    try:
        return place(url)
    except ValueError:
        return "this URL"


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
