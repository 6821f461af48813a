"""All open WebSockets of one replica: what is told to whom, who may go on, and how they end."""

import asyncio
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from redis.asyncio import Redis

from domain.errors import BrainError
from serve_app.access_watch import AccessWatch
from serve_app.ingress import metrics
from serve_app.ingress.callers import Callers, concerns
from serve_app.ingress.socket.attendance import Attendance, Place
from serve_app.ingress.socket.connection import AGAIN, RESTART, UNAUTHORIZED, Connection
from serve_app.ingress.socket.wire import come_back
from storage.access import AccessChange
from storage.broadcast import RedisBroadcast, Told
from storage.presence import RedisPresence
from storage.redis import Pipeline
from storage.tickets import RedisTickets

log = logging.getLogger("brain.socket")

TICK = 1.0  # seconds between looks at what has expired
UNNAMED = 10.0  # seconds until a client must have said who it is
TOGETHER = 64  # callers that are looked up at once


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """Of one replica. `unnamed`: sockets whose callers are not known yet; `tenant`: those of one tenant; `user`: those
    of a user who sees its own conversations alone."""

    sockets: int = 10_000
    tenant: int = 5_000
    user: int = 50
    unnamed: int = 1_000


class Sockets:
    """`name` is this replica's among all."""

    def __init__(
        self,
        broadcast: RedisBroadcast,
        presence: RedisPresence,
        tickets: RedisTickets,
        limits: SocketLimits | None = None,
        name: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.broadcast, self.tickets = broadcast, tickets
        self.attendance = Attendance(presence, self._tell)
        self.limits, self.name = limits or SocketLimits(), name or uuid.uuid4().hex[:12]
        self.open: set[Connection] = set()
        self.unnamed: dict[Connection, None] = {}
        self.announced: Callable[[Connection, str, str], None] = lambda socket, conversation, turn: None
        self.behind: Callable[[Connection], None] = lambda socket: None
        self.callers: Callers | None = None
        self.draining = False
        self._of: dict[Place, set[Connection]] = {}
        self._tenants: Counter[str] = Counter()
        self._users: Counter[tuple[str, str]] = Counter()
        self._doubtful: set[Connection] = set()
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._checking: asyncio.Task[None] | None = None
        broadcast.hear, broadcast.missed = self._hear, self._missed

    def start(self, callers: Callers, watch: AccessWatch | None) -> None:
        """Hear of changed access after `callers`, and look at what expires."""
        self.callers = callers
        if watch is not None:
            watch.listeners.append(self.heard)
        self._tasks = [
            asyncio.create_task(self._tick(), name="sockets"),
            asyncio.create_task(self.attendance.stay(), name="presence"),
        ]

    async def close(self) -> None:
        for task in (*self._tasks, *([self._checking] if self._checking else [])):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.drain()
        await self.broadcast.close()

    def drain(self) -> None:
        """Send all clients to other replicas, and take no more."""
        self.draining = True
        for socket in list(self.open):
            socket.push(come_back(len(self.open)).decode())
            socket.close(RESTART, "the service stops: connect again")

    # Coming and going.

    def enter(self, socket: Connection) -> None:
        self.open.add(socket)
        if socket.caller is None:
            self.unnamed[socket] = None
        metrics.OPEN_SOCKETS.inc()

    @property
    def full(self) -> bool:
        return len(self.open) >= self.limits.sockets

    def named(self, socket: Connection) -> bool:
        """Its caller is known now; False where its tenant, or its user, has as many sockets as it may."""
        assert socket.caller is not None
        self.unnamed.pop(socket, None)
        tenant, user = socket.caller.tenant, socket.caller.only_user
        if user is not None and self._users[tenant, user] >= self.limits.user:
            socket.close(AGAIN, "this user has as many sockets here as it may: try again later")
            socket.caller = None
            return False
        if self._tenants[tenant] >= self.limits.tenant:
            socket.close(AGAIN, "this tenant has as many sockets here as it may: try again later")
            socket.caller = None  # it was never counted
            return False
        self._tenants[tenant] += 1
        if user is not None:
            self._users[tenant, user] += 1
        return True

    async def leave(self, socket: Connection) -> None:
        self.open.discard(socket)
        self.unnamed.pop(socket, None)
        self._doubtful.discard(socket)
        metrics.OPEN_SOCKETS.dec()
        caller = socket.caller
        if caller is None:
            return
        self._tenants[caller.tenant] -= 1
        if not self._tenants[caller.tenant]:
            del self._tenants[caller.tenant]
        if (user := caller.only_user) is not None:
            self._users[caller.tenant, user] -= 1
            if not self._users[caller.tenant, user]:
                del self._users[caller.tenant, user]
        for conversation in list(socket.watched or ()):
            await self.unwatch(socket, conversation)

    # Conversations.

    async def watch(self, socket: Connection, conversation: str) -> None:
        """What is told of the conversation goes to this socket from now on."""
        assert socket.caller is not None
        place = (socket.caller.tenant, conversation)
        if socket.watched is None:
            socket.watched = set()
        if conversation in socket.watched:
            return
        socket.watched.add(conversation)
        self._of.setdefault(place, set()).add(socket)
        await self.broadcast.join(*place)
        await self.attendance.come(place, socket.caller.user or "", socket.id)

    async def unwatch(self, socket: Connection, conversation: str) -> None:
        if socket.caller is None or socket.watched is None or conversation not in socket.watched:
            return
        socket.watched.discard(conversation)
        place = (socket.caller.tenant, conversation)
        if (listening := self._of.get(place)) is not None:
            listening.discard(socket)
            if not listening:
                del self._of[place]
        await self.broadcast.leave(*place)
        await self.attendance.go(place, socket.caller.user or "", socket.id)

    def tell(self, socket: Connection, conversation: str, frame: str) -> None:
        """A frame for all other sockets that watch the conversation, here and elsewhere."""
        assert socket.caller is not None
        self._tell(Told(socket.caller.tenant, conversation, "frame", socket.id, frame))

    def _tell(self, told: Told) -> None:
        self._deliver(told)
        self.broadcast.tell(replace(told, origin=told.origin or f"{self.name}."))

    def _hear(self, told: Told) -> None:
        if told.kind == "turn":
            for socket in list(self._of.get((told.tenant, told.conversation), ())):
                self.announced(socket, told.conversation, told.body)
        elif not told.origin.startswith(f"{self.name}."):  # what was told here was delivered at once
            self._deliver(told)

    def _deliver(self, told: Told) -> None:
        for socket in list(self._of.get((told.tenant, told.conversation), ())):
            if socket.id != told.origin:
                socket.push(told.body)

    def _missed(self) -> None:
        for socket in list(self.open):
            if socket.watched:
                self.behind(socket)

    # Who may go on.

    def heard(self, changes: list[AccessChange] | None) -> None:
        """The last who hears of it: what was remembered while others learnt of it is forgotten once more."""
        if self.callers is not None:
            self.callers.forget(changes)
        for socket in self.open:
            caller = socket.caller
            if caller is not None and (changes is None or any(concerns(one, caller) for one in changes)):
                self._doubtful.add(socket)
        self._check()

    def _check(self) -> None:
        if self._doubtful and (self._checking is None or self._checking.done()):
            self._checking = asyncio.create_task(self._check_doubtful(), name="socket-callers")

    async def _check_doubtful(self) -> None:
        await asyncio.sleep(0)  # whoever remembers callers hears of the change first
        while self._doubtful:
            some = [self._doubtful.pop() for _ in range(min(TOGETHER, len(self._doubtful)))]
            if False in await asyncio.gather(*map(self._still, some)):
                return  # the next tick tries again

    async def _still(self, socket: Connection) -> bool:
        """Close the socket if its caller may not speak any more. False where that cannot be told now."""
        if self.callers is None or socket.caller is None:
            return True
        try:
            caller = await self.callers.caller(socket.credential)
        except BrainError:
            self._doubtful.add(socket)
            return False
        if caller is None:
            socket.close(UNAUTHORIZED, "this API key or access token is not valid any more")
        elif (caller.permissions, caller.user, caller.tenant) != (
            socket.caller.permissions,
            socket.caller.user,
            socket.caller.tenant,
        ):
            socket.close(UNAUTHORIZED, "what you may do has changed: connect again")
        return True

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            now, since = self._clock(), time.monotonic() - UNNAMED
            for socket in list(self.unnamed):
                if socket.opened > since:
                    break
                socket.close(UNAUTHORIZED, f"nobody said within {UNNAMED:g} s who speaks")
                self.unnamed.pop(socket, None)
            for socket in expired(self.open, now):
                socket.close(UNAUTHORIZED, "this access token has expired: connect again with another one")
            self._check()


def expired(sockets: Iterable[Connection], now: float) -> list[Connection]:
    return [
        one
        for one in sockets
        if one.caller is not None and one.caller.expires_at is not None and one.caller.expires_at <= now
    ]


def sockets(redis: Redis, listening: Redis, limits: SocketLimits | None = None) -> Sockets:
    """`listening`: a client that waits ten seconds for an answer."""
    name, pipeline = uuid.uuid4().hex[:12], Pipeline(redis)
    return Sockets(
        RedisBroadcast(redis, listening), RedisPresence(pipeline, name), RedisTickets(pipeline), limits, name
    )
