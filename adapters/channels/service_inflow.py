"""What a service tells over one connection: of each thread in its order, and a bounded number at once."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from adapters.channels.service_frames import WINDOW, Tell
from domain.channels import Inbound, Received
from domain.errors import BrainError, Retryable

log = logging.getLogger("brain.channels")

ENDING = 2.0  # seconds for what is being stored when the connection ends

Say = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass
class _Place:
    cursor: str | None
    answered: bool = False


class Inflow:
    """`receive`: stores. `say`: answers. `give_up` is called with the reason where something could not be stored for
    `patience` seconds: what follows on it must not overtake it, so the connection ends, and all of it is told again.

    `resume`: the cursor up to which everything was answered.
    """

    def __init__(
        self,
        receive: Callable[[Inbound], Awaitable[Received]],
        say: Say,
        give_up: Callable[[str], None],
        resume: str | None = None,
        window: int = WINDOW,
        patience: float = 30.0,
        pause: float = 0.1,
    ) -> None:
        self._receive, self._say, self._give_up = receive, say, give_up
        self.resume, self._patience, self._pause = resume, patience, pause
        self._room = asyncio.Semaphore(window)
        self._last: dict[str, asyncio.Task[None]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._taking: set[asyncio.Future[Received]] = set()
        self._places: deque[_Place] = deque()
        self._closed = asyncio.Event()

    async def take(self, told: Tell) -> None:
        """Returns once there is room for it: who reads no further holds the other side back."""
        await self._room.acquire()
        place = _Place(told.cursor)
        self._places.append(place)
        task = asyncio.create_task(self._work(told, place, self._last.get(told.thread)))
        if told.type == "message":
            self._last[told.thread] = task
        self._running.add(task)
        task.add_done_callback(lambda done: self._left(told.thread, done))

    async def close(self) -> None:
        """What was not begun is left; what was is brought to its end."""
        self._closed.set()
        for task in (running := list(self._running)):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._taking:
            await asyncio.wait(self._taking, timeout=ENDING)

    def _left(self, thread: str, task: asyncio.Task[None]) -> None:
        self._room.release()
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # that of an answer which found no connection: it ends by itself
        if self._last.get(thread) is task:
            del self._last[thread]

    async def _work(self, told: Tell, place: _Place, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
            if before.cancelled():
                raise asyncio.CancelledError
        answer = await self._answer(told)
        if answer is None:
            await self._closed.wait()  # nothing may overtake it
            return
        await self._say(answer)
        self._advance(place)

    async def _answer(self, told: Tell) -> dict[str, Any] | None:
        began, pause = time.monotonic(), self._pause
        while True:
            try:
                return _ack(told.id, await self._received(told.inbound))
            except Retryable as error:
                if self._closed.is_set() or time.monotonic() - began > self._patience:
                    self._give_up(f"what was told could not be stored: {type(error).__name__}")
                    return None
                await asyncio.sleep(pause)
                pause = min(2 * pause, 5.0)
            except BrainError as error:
                return refusal(told.id, error.code or error.type, str(error))
            except Exception:
                log.exception("what a channel told could not be taken")
                return refusal(told.id, "internal_error", "this cannot be taken at the moment", again=True)

    async def _received(self, inbound: Inbound) -> Received:
        """What has begun is brought to its end though the connection breaks: a turn is accepted whole."""
        taking = asyncio.ensure_future(self._receive(inbound))
        self._taking.add(taking)
        taking.add_done_callback(self._taken)
        return await asyncio.shield(taking)

    def _taken(self, taking: "asyncio.Future[Received]") -> None:
        self._taking.discard(taking)
        if not taking.cancelled():
            taking.exception()  # nobody may be left to hear it: it is told again

    def _advance(self, place: _Place) -> None:
        place.answered = True
        while self._places and self._places[0].answered:
            self.resume = self._places.popleft().cursor or self.resume


def _ack(id: str, received: Received) -> dict[str, Any]:
    return {
        "frame": "ack",
        "id": id,
        "duplicate": received.duplicate,
        "conversation_id": received.conversation,
        "turn_id": received.turn,
        "message_id": received.message,
    }


def refusal(id: str, code: str, message: str, again: bool = False) -> dict[str, Any]:
    """`again`: the same may be told once more."""
    return {"frame": "error", "id": id, "code": code, "message": message, "again": again}
