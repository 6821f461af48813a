"""What replicas tell each other of conversations at once, by Redis pub/sub: a turn that began, who is typing.

Conversations fall on a fixed number of channels, of which a replica listens to those that it needs, over one
connection. Pub/sub keeps nothing: whoever listened while the connection was away is told that something may be missed.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal
from zlib import crc32

from redis.asyncio import Redis
from redis.exceptions import RedisError

from storage.redis import Pipeline

log = logging.getLogger("brain.broadcast")

CHANNELS = 64
BEAT, PATIENCE = 3.0, 8.0  # seconds between signs of life, and without one until the connection is given up
CONFIRMED = 2.0  # seconds that a listener waits until Redis has confirmed a channel
Kind = Literal["turn", "frame"]


@dataclass(frozen=True, slots=True)
class Told:
    """`origin`: whose word it is, which need not be told to it again. `body`: a turn's id, or a frame as it is sent."""

    tenant: str
    conversation: str
    kind: Kind
    origin: str
    body: str


def channel(tenant: str, conversation: str) -> str:
    return f"brain:live:{crc32(f'{tenant}:{conversation}'.encode()) % CHANNELS}"


def publication(told: Told) -> tuple[str, str, str]:
    """The command that tells it."""
    words = "\n".join((told.tenant, told.conversation, told.kind, told.origin, told.body))
    return "PUBLISH", channel(told.tenant, told.conversation), words


def heard(payload: bytes) -> Told | None:
    parts = payload.decode(errors="replace").split("\n", 4)
    return Told(*parts) if len(parts) == 5 else None  # type: ignore[arg-type]


class RedisBroadcast:
    """`listening` must be a client that waits longer than `PATIENCE` for an answer.

    `hear` is called with all that is told on the channels that were joined; `missed` after an outage, once they are
    listened to again.
    """

    def __init__(self, redis: Redis, listening: Redis) -> None:
        self._pipeline, self._redis = Pipeline(redis), listening
        self._wanted: Counter[str] = Counter()
        self._confirmed: dict[str, asyncio.Event] = {}
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self.hear: Callable[[Told], None] = lambda told: None
        self.missed: Callable[[], None] = lambda: None
        self.away = False

    def tell(self, told: Told) -> None:
        """To whoever listens; lost where Redis is away."""
        self._pipeline.send(*publication(told)).add_done_callback(_looked_at)

    async def join(self, tenant: str, conversation: str) -> None:
        """Hear of this conversation. Returns once Redis has confirmed it, or does not answer."""
        name = channel(tenant, conversation)
        self._wanted[name] += 1
        confirmed = self._confirmed.setdefault(name, asyncio.Event())
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="broadcast")
            self._beating = asyncio.create_task(self._beat(), name="broadcast-beat")
        elif self._wanted[name] == 1:
            await self._say("SUBSCRIBE", name)
        if not self.away and not confirmed.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(CONFIRMED):
                    await confirmed.wait()

    async def leave(self, tenant: str, conversation: str) -> None:
        name = channel(tenant, conversation)
        self._wanted[name] -= 1
        if self._wanted[name] <= 0:
            del self._wanted[name]
            self._confirmed.pop(name, None)
            await self._say("UNSUBSCRIBE", name)

    async def close(self) -> None:
        for task in (self._task, self._beating):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._pipeline.close()
        await self._redis.aclose()

    async def _say(self, *words: str) -> None:
        connection = self._connection
        if connection is None:
            return
        with suppress(RedisError, OSError, TimeoutError):
            await connection.send_packed_command(connection.pack_command(*words), check_health=False)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            await self._say("PING")

    async def _listen(self) -> None:
        first = True
        while True:
            connection = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                await connection.connect()
                self._connection = connection
                await self._say("PING")
                for name in list(self._wanted):
                    await self._say("SUBSCRIBE", name)
                behind = set() if first else set(self._wanted)
                first = self.away = False
                while True:
                    self._take(await connection.read_response(timeout=PATIENCE), behind)
            except (TimeoutError, RedisError, OSError) as error:
                if not self.away:
                    log.warning("replicas do not hear each other for the moment: %s", type(error).__name__)
                self.away = True
            except Exception:
                log.exception("what was told cannot be heard")
            finally:
                self._connection = None
                with suppress(RedisError, OSError, TimeoutError):
                    await connection.disconnect(nowait=True)
            for confirmed in self._confirmed.values():
                confirmed.clear()
            await asyncio.sleep(random.uniform(0.2, 0.6))

    def _take(self, answer: Any, behind: set[str]) -> None:
        if not isinstance(answer, list) or len(answer) < 3:
            return
        kind, name = answer[0], answer[1]
        if kind == b"message":
            if (told := heard(answer[2])) is not None:
                self.hear(told)
        elif kind == b"subscribe":
            if (confirmed := self._confirmed.get(name.decode())) is not None:
                confirmed.set()
            if behind:
                behind.discard(name.decode())
                if not behind:
                    self.missed()


def _looked_at(answer: "asyncio.Future[Any]") -> None:
    if not answer.cancelled():
        answer.exception()  # nobody waits for it
