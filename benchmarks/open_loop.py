"""Turns that arrive by a clock, whether or not earlier ones have been answered: late answers do not slow arrivals.

Each arrival is a streamed turn of a kept conversation. Of a stream's bytes only two words are looked for, so that an
arrival costs the generator little: it shares the machine with what it measures.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import aiohttp
import orjson

from benchmarks.systems.brain import Brain

MOST_OPEN = 3000  # turns of the generator at once; an arrival beyond is counted and not sent
LONGEST = 30.0  # seconds that a turn is waited for
TURNS_A_CONVERSATION = 20
ATTEMPTS = 0.05  # share of the refused that come back when they were told to


@dataclass(slots=True)
class Arrival:
    """One turn; times are seconds of the monotonic clock. `refused`: the status and code of an answer that is none."""

    due: float
    first: float | None = None
    ended: float = 0.0
    completed: bool = False
    refused: str | None = None
    refusal_s: float = 0.0
    retry_after: float | None = None


@dataclass(slots=True)
class Phase:
    """What arrived between two moments."""

    opens: float
    closes: float
    arrivals: list[Arrival] = field(default_factory=list)
    not_sent: int = 0
    came_back: int = 0
    admitted_then: int = 0

    def good(self, arrived: Iterable[Arrival], within: float) -> int:
        """Turns that ended in the phase, whenever they arrived: complete, `within` seconds of their arrival."""
        return sum(
            one.completed and self.opens <= one.ended < self.closes and one.ended - one.due <= within for one in arrived
        )


class OpenLoop:
    """Sends to `service`, with conversations that were made before (`prepare`)."""

    def __init__(self, service: Brain, session: aiohttp.ClientSession, model: str, seed: int) -> None:
        self._service, self._session, self._model = service, session, model
        self._drawn = random.Random(seed)
        self._idle: deque[tuple[str, int]] = deque()
        self._open: set[asyncio.Task[None]] = set()

    async def prepare(self, conversations: int) -> None:
        """Have that many conversations without a turn."""
        chat = self._service.chat(kept=True)
        while len(self._idle) < conversations:
            made = await asyncio.gather(*(chat.open_thread(self._session) for _ in range(8)))
            self._idle.extend((conversation, 0) for conversation in made)

    async def closed(self, clients: int, seconds: float) -> float:
        """Turns a second that `clients` in a closed loop get: the capacity."""
        done, closes = 0, time.monotonic() + seconds

        async def client() -> None:
            nonlocal done
            while time.monotonic() < closes:
                arrival = Arrival(time.monotonic())
                await self._turn(arrival)
                done += arrival.completed and arrival.ended <= closes
                if arrival.refused:
                    await asyncio.sleep(0.1)

        await asyncio.gather(*(client() for _ in range(clients)))
        return done / seconds

    async def phase(self, rate: float, seconds: float) -> Phase:
        """Poisson arrivals, `rate` a second, for `seconds`. What is not answered then goes on in the background."""
        opens = due = time.monotonic()
        phase = Phase(opens, opens + seconds)
        while (due := due + self._drawn.expovariate(rate)) < phase.closes:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if len(self._open) >= MOST_OPEN or not self._idle:
                phase.not_sent += 1
                continue
            arrival = Arrival(due)
            phase.arrivals.append(arrival)
            self._start(self._arrive(phase, arrival))
        await asyncio.sleep(max(0.0, phase.closes - time.monotonic()))
        return phase

    async def finish(self) -> None:
        """Wait for what is open, at most as long as a turn may take."""
        if self._open:
            await asyncio.wait(set(self._open), timeout=LONGEST)

    def _start(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.create_task(work)
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _arrive(self, phase: Phase, arrival: Arrival) -> None:
        await self._turn(arrival)
        if arrival.retry_after is not None and self._drawn.random() < ATTEMPTS:
            await asyncio.sleep(arrival.retry_after)
            again = Arrival(time.monotonic())
            await self._turn(again)
            phase.came_back += 1
            phase.admitted_then += again.refused is None

    async def _turn(self, arrival: Arrival) -> None:
        if not self._idle:
            return
        conversation, turns = self._idle.popleft()
        url = f"{self._service.url}/api/v1/conversations/{conversation}/messages"
        body = orjson.dumps({"content": "Where is my order?", "model": self._model, "stream": True})
        headers = {**self._service.headers, "content-type": "application/json"}
        began = time.monotonic()
        try:
            async with asyncio.timeout(LONGEST), self._session.post(url, data=body, headers=headers) as answer:
                if answer.status != 200:
                    code = orjson.loads(await answer.read())["error"]["code"]
                    arrival.refused, arrival.refusal_s = f"{answer.status} {code}", time.monotonic() - began
                    after = answer.headers.get("retry-after")
                    arrival.retry_after = None if after is None else float(after)
                else:
                    await self._read(arrival, answer)
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError) as error:
            arrival.refused, arrival.refusal_s = type(error).__name__, time.monotonic() - began
            return  # its conversation may still be busy
        if turns + bool(arrival.completed) < TURNS_A_CONVERSATION and (arrival.completed or arrival.retry_after):
            self._idle.append((conversation, turns + arrival.completed))

    async def _read(self, arrival: Arrival, answer: aiohttp.ClientResponse) -> None:
        tail = b""
        async for piece in answer.content.iter_any():
            tail = tail[-40:] + piece
            if arrival.first is None and b"event: message.delta" in tail:
                arrival.first = time.monotonic()
            arrival.completed = arrival.completed or b"event: turn.completed" in tail
        arrival.ended = time.monotonic()
