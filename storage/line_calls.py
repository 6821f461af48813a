"""Words between processes that hold connections (`domain.lines.LineCalls`), by Redis pub/sub."""

import asyncio
import contextlib
import json
import logging
import uuid
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from domain.errors import Unavailable
from domain.lines import NoAnswer, Obey, Order

log = logging.getLogger("brain.lines")

QUIET, MOST = 3.0, 3  # seconds until Redis is asked whether it is there, and how often in vain
PAUSE = 1.0  # seconds after a failure


class RedisLineCalls:
    """`listening`: a client that waits longer than `QUIET` for an answer; `close` closes both.

    `holder`: this process.
    """

    def __init__(self, redis: Redis, listening: Redis, holder: str) -> None:
        self._redis, self._listening, self.holder = redis, listening, holder
        self._asked: dict[str, asyncio.Future[Order]] = {}
        self._obeying: set[asyncio.Task[None]] = set()
        self._obey: Obey | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._heard, self._hearing = 0, False  # how often answers began to be heard, and whether they are

    def on_order(self, obey: Obey) -> None:
        self._obey = obey
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="line-calls")

    async def ask(self, holder: str, order: Order, within: float) -> Order | None:
        if not self._hearing:  # the answer would be lost
            raise Unavailable("answers of other processes are not heard at the moment")
        number = uuid.uuid4().hex
        answer: asyncio.Future[Order] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        heard = self._heard
        try:
            if not await self._publish(holder, {"order": order, "number": number, "from": self.holder}):
                return None
            async with asyncio.timeout(within):
                return await answer
        except TimeoutError as error:
            if heard != self._heard or not self._hearing:
                raise Unavailable("answers of other processes are not heard at the moment") from error
            raise NoAnswer("the process that holds this channel's connection did not answer in time") from error
        finally:
            del self._asked[number]

    async def tell(self, holder: str, order: Order) -> None:
        await self._publish(holder, {"order": order})

    async def close(self) -> None:
        self._closed = True  # also where the client loses a cancellation
        for task in (*self._obeying, *([self._task] if self._task else [])):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.gather(self._listening.aclose(), self._redis.aclose(), return_exceptions=True)

    async def _publish(self, holder: str, told: dict[str, Any]) -> int:
        try:
            return int(await self._redis.publish(_name(holder), json.dumps(told)))
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable("the process that holds this channel cannot be reached at the moment") from error

    async def _listen(self) -> None:
        while not self._closed:
            try:
                async with self._listening.pubsub() as heard:
                    await heard.subscribe(_name(self.holder))
                    await self._hear(heard)
            except (RedisError, OSError, TimeoutError) as error:
                self._hearing = False
                log.warning("other processes are not heard at the moment: %s", type(error).__name__)
                await asyncio.sleep(PAUSE)

    async def _hear(self, heard: Any) -> None:
        quiet = 0
        while quiet < MOST and not self._closed:
            found = await heard.get_message(timeout=QUIET)
            if found is None:
                quiet += 1
                await heard.ping()
                continue
            quiet = 0
            if found["type"] == "subscribe":
                self._heard, self._hearing = self._heard + 1, True
            if found["type"] == "message":
                self._take(json.loads(found["data"]))
        if not self._closed:
            raise TimeoutError

    def _take(self, told: dict[str, Any]) -> None:
        if "answer" in told:
            waiting = self._asked.get(told["number"])
            if waiting is not None and not waiting.done():
                waiting.set_result(told["answer"])
            return
        task = asyncio.create_task(self._do(told))
        self._obeying.add(task)
        task.add_done_callback(self._obeying.discard)

    async def _do(self, told: dict[str, Any]) -> None:
        assert self._obey is not None
        answer = await self._obey(told["order"])
        if "number" in told:
            with contextlib.suppress(Unavailable):
                await self._publish(told["from"], {"answer": answer, "number": told["number"]})


def _name(holder: str) -> str:
    return f"brain:lines:{holder}"
