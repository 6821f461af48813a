"""Redis: what may vanish. One pipeline carries whatever waits, so that many turns share a round trip."""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from domain.errors import JournalUnavailable


def open_redis(url: str, timeout: float = 2.0) -> Redis:
    """A client that connects at its first call and never retries by itself. `timeout`: seconds for an answer."""
    return Redis.from_url(
        url,
        protocol=2,
        socket_connect_timeout=timeout,
        socket_timeout=timeout,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )


class Line:
    """One connection of a client, driven by hand: the client's own methods cost several times as much a command."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._connection: Any = redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]

    async def exchange(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """One write, and as many answers. An answer that is an error of its command is given, not raised.

        After an error that is raised (TimeoutError, RedisError, OSError) call `drop`: answers may be on their way.
        """
        connection = self._connection
        if not connection.is_connected:
            await connection.connect()
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        answers: list[Any] = []
        for _ in commands:
            try:
                answers.append(await connection.read_response())
            except ResponseError as error:
                answers.append(error)
        return answers

    async def drop(self) -> None:
        """Forget the connection; the next exchange opens another one."""
        await self._connection.disconnect(nowait=True)

    async def close(self) -> None:
        await self._connection.disconnect()
        await self._redis.aclose()


class Pipeline:
    """Sends commands in the order they are given; those that come while a batch is under way form the next one."""

    def __init__(self, redis: Redis) -> None:
        self._line = Line(redis)
        self._waiting: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._sender: asyncio.Task[None] | None = None

    def send(self, *command: Any) -> asyncio.Future[Any]:
        """The answer of one command. It is a `JournalUnavailable`, or Redis's own `ResponseError`, if it failed."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._drain())
        return future

    async def close(self) -> None:
        """Send what waits, then close the connections."""
        if self._sender is not None:
            await asyncio.gather(self._sender, return_exceptions=True)
        await self._line.close()

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                answers = await self._line.exchange([command for command, _ in batch])
            except (TimeoutError, RedisError, OSError) as error:
                await self._line.drop()
                answers = [JournalUnavailable(f"Redis cannot be reached ({type(error).__name__})")] * len(batch)
            except asyncio.CancelledError:
                for _, future in batch:
                    future.cancel()
                raise
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
