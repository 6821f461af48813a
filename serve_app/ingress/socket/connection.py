"""One open WebSocket: who speaks, what it follows, and what waits to be written to it.

Nothing runs for a socket that is silent but the task that reads it. A frame is written at once where the connection
takes it; where it does not, a task writes what waits, up to a bound.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping
from types import coroutine
from typing import Any

from domain.tenant import Caller
from serve_app.ingress import metrics
from serve_app.ingress.socket.wire import abort

BUFFER = 1024 * 1024  # characters that may wait to be written
ROOM = 256 * 1024  # of them, below which more of a stream is fetched
FRAMES, BURST = 50.0, 250.0  # frames a second that a client may send, and at once
ASKING, ASKED = 10.0, 120.0  # of them, for which a store is asked: an application that opens asks of all that it shows
FORGIVEN = 20  # frames over `FRAMES`, which are refused one by one
ENDED = 32  # turns that have ended here lately: a late word of them begins nothing

UNAUTHORIZED, SLOW, FLOODING = 4401, 4408, 4429
UNSUPPORTED, RESTART, AGAIN = 1003, 1012, 1013  # RFC 6455, section 7.4.1, and its registry

Transmit = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_names = itertools.count(1)


class Connection:
    """`caller` and `credential`: None until it is known who speaks. `following`: the turns whose events go here, and
    the tasks that bring them. `watched`: conversations all of whose turns do. `closing`: the code, once it closes."""

    __slots__ = (
        "_allowance",
        "_asking",
        "_at",
        "_over",
        "_room",
        "_size",
        "_transmit",
        "_waiting",
        "_writer",
        "caller",
        "closing",
        "credential",
        "ended",
        "following",
        "id",
        "opened",
        "tasks",
        "typing",
        "watched",
    )

    def __init__(self, transmit: Transmit, replica: str = "") -> None:
        self._transmit: Any = transmit
        self.id = f"{replica}.{next(_names)}"
        self.opened = time.monotonic()
        self.caller: Caller | None = None
        self.credential = ""
        self.closing: int | None = None
        self.following: dict[str, Any] | None = None
        self.watched: dict[str, str] | None = None  # with the last turn that went or need not go here
        self.typing: set[str] | None = None
        self.tasks: set[asyncio.Task[None]] | None = None
        self.ended: deque[str] | None = None
        self._waiting: deque[str] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._room: asyncio.Event | None = None
        self._size, self._allowance, self._asking, self._at, self._over = 0, BURST, ASKED, self.opened, 0

    def push(self, text: str) -> None:
        """Write a frame, now or as soon as the client takes it. A client that takes none for long is sent away."""
        if self.closing is not None:
            return
        if self._waiting is not None:
            if self._size + len(text) > BUFFER:
                metrics.SOCKET_OVERFLOWS.inc()
                self.close(SLOW, "the client reads too slowly: connect again and resume after the last event")
                return
            self._waiting.append(text)
            self._size += len(text)
            return
        metrics.SOCKET_FRAMES.labels("out").inc()
        self._step({"type": "websocket.send", "text": text})

    def close(self, code: int, reason: str = "") -> None:
        """Say goodbye; what waits is still written, unless the client is too slow for it."""
        if self.closing is not None:
            return
        self.closing = code
        metrics.SOCKET_CLOSES.labels(str(code)).inc()
        if self._waiting is None:
            self._step({"type": "websocket.close", "code": code, "reason": reason[:120]})
        else:
            if code == SLOW:
                self._waiting.clear()
            self.spawn(self._goodbye({"type": "websocket.close", "code": code, "reason": reason[:120]}))
            abort(self._transmit)

    async def room(self) -> None:
        """Returns when little waits to be written."""
        while self._waiting is not None and self._size > ROOM and self.closing is None:
            self._room = self._room or asyncio.Event()
            self._room.clear()
            await self._room.wait()

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """A task that ends with the connection."""
        task = asyncio.get_running_loop().create_task(work)
        if self.tasks is None:
            self.tasks = set()
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def allows(self, now: float, asks: bool = False) -> bool:
        """Whether another frame may come (token buckets); `asks`: whether a store is asked for it. A client that goes
        on and on is sent away: for the frames it sends, not for those of them that ask too much."""
        since, self._at = now - self._at, now
        self._allowance = min(BURST, self._allowance + since * FRAMES)
        self._asking = min(ASKED, self._asking + since * ASKING)
        if self._allowance < 1:
            self._over += 1
            if self._over > FORGIVEN:
                self.close(FLOODING, f"more than {FRAMES:g} frames a second")
            return False
        self._allowance -= 1
        if self._allowance > BURST / 2:
            self._over = 0
        if asks and self._asking < 1:
            return False
        self._asking -= asks
        return True

    def follows(self, turn_id: str) -> bool:
        """Whether the turn's events go here, or went until it ended a moment ago."""
        return turn_id in (self.following or ()) or turn_id in (self.ended or ())

    def end_turn(self, turn_id: str) -> None:
        if self.following is not None and (following := self.following.pop(turn_id, None)) is not None:
            self.reached(following.conversation, turn_id)
            self.ended = self.ended or deque(maxlen=ENDED)
            self.ended.append(turn_id)

    def reached(self, conversation: str, turn_id: str) -> None:
        """Turns of a watched conversation that were accepted after this one are still to go here. Ids follow time."""
        if self.watched is not None and conversation in self.watched:
            self.watched[conversation] = max(self.watched[conversation], turn_id)

    def stop(self) -> None:
        """Nothing is written any more, and nothing runs for this connection."""
        self.closing = self.closing or 1006
        for task in list(self.tasks or ()):
            task.cancel()

    def _step(self, message: dict[str, Any]) -> None:
        """Run the transmission up to where it has to wait; a task does the rest."""
        sending = self._transmit(message)
        try:
            blocked = sending.send(None)
        except StopIteration:
            return
        except (OSError, RuntimeError):  # the connection is gone: its reader hears of that
            self.closing = self.closing or 1006
            return
        self._waiting = deque()
        self._writer = self.spawn(self._write(_rest(sending, blocked)))

    async def _write(self, first: Awaitable[None]) -> None:
        try:
            await first
            while self._waiting:
                text = self._waiting.popleft()
                self._size -= len(text)
                if self._room is not None and self._size <= ROOM:
                    self._room.set()
                metrics.SOCKET_FRAMES.labels("out").inc()
                await self._transmit({"type": "websocket.send", "text": text})
        except (OSError, RuntimeError):
            self.closing = self.closing or 1006
        finally:
            self._waiting, self._size = None, 0
            if self._room is not None:
                self._room.set()

    async def _goodbye(self, message: dict[str, Any]) -> None:
        if self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)
        try:
            await self._transmit(message)
        except (OSError, RuntimeError):
            return


@coroutine
def _rest(begun: Any, blocked: Any) -> Generator[Any, Any, None]:
    """What is left of a coroutine that has run up to its first wait, for a task to await."""
    while True:
        try:
            sent = yield blocked
        except BaseException as error:
            try:
                blocked = begun.throw(error)
            except StopIteration:
                return
        else:
            try:
                blocked = begun.send(sent)
            except StopIteration:
                return
