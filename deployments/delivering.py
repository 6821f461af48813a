"""Turns the outbox into deliveries and sends them: two loops that others may run beside, and that may die anywhere.

A delivery is sent again where nobody knows how its attempt ended; within a lane nothing overtakes.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from domain.acting import acting_for
from domain.channels import SEND_WITHIN, Sent
from domain.deliveries import Due, FanOut, Lane, Lanes, Retry, Transport, lost, verdict
from domain.errors import Unavailable

log = logging.getLogger("brain.deliveries")

BATCH = 200  # rows of the outbox, of one tenant
TENANTS = 64  # looked at in one round
MOST = 64  # lanes that one sender works on at once
IN_A_ROW = 20  # deliveries of a lane, until others have their turn
AWAKE, ASLEEP = 0.1, 0.5  # seconds between two looks: after work, and when nothing came for a while
DOZE = 20.0  # seconds without work until it is asleep
TROUBLE = 5.0  # seconds, the longest pause after a failure
REST = 30.0  # seconds until a tenant is tried again whose rows could not be worked on

Began = Callable[[str, Sequence[str]], Coroutine[Any, Any, None]]


async def nobody_hears(tenant: str, conversations: Sequence[str]) -> None:
    """`Began` where no channel is told that an answer is being made."""


@dataclass
class Figures:
    """What was done since the start."""

    rows: int = 0
    deliveries: int = 0
    attempts: int = 0
    delivered: int = 0
    failed: int = 0


class FanningOut:
    """`woken` is called when there is something to send; `began` hears in which conversations an answer is made."""

    def __init__(
        self, fan_out: FanOut, figures: Figures, woken: Callable[[], None], began: Began = nobody_hears
    ) -> None:
        self._fan_out, self.figures, self._woken, self._began = fan_out, figures, woken, began
        self._resting: dict[str, float] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(looking(self.step, "events are not made into deliveries"))

    async def close(self) -> None:
        for task in (*self._telling, *([self._task] if self._task else [])):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def step(self) -> int:
        """One round over the tenants: how many rows it was."""
        done = 0
        now = time.monotonic()
        for tenant in await self._fan_out.tenants(TENANTS):
            if now < self._resting.get(tenant, now):
                continue
            with acting_for(tenant):
                try:
                    done += await self._step(tenant)
                    self._resting.pop(tenant, None)
                except Unavailable:
                    raise
                except Exception:  # the others go on
                    log.exception("this tenant's events are not made into deliveries at the moment")
                    self._resting[tenant] = now + REST
        return done

    async def _step(self, tenant: str) -> int:
        fanned = await self._fan_out.step(tenant, BATCH)
        if fanned.began:
            task = asyncio.create_task(self._began(tenant, fanned.began))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)
        self.figures.rows += fanned.rows
        self.figures.deliveries += fanned.deliveries
        if fanned.deliveries:
            self._woken()
        return fanned.rows


class Sending:
    """`chance`: in [0, 1), for the jitter."""

    def __init__(
        self,
        lanes: Lanes,
        transport: Transport,
        figures: Figures,
        retry: Retry | None = None,
        most: int = MOST,
        within: float = SEND_WITHIN,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._lanes, self._transport, self.figures = lanes, transport, figures
        self._retry, self._most, self._within, self._chance = retry or Retry(), most, within, chance
        self._at_work: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(looking(self.step, "deliveries are not sent", self._wake))

    def wake(self) -> None:
        self._wake.set()

    async def close(self) -> None:
        """What is being sent is broken off, and sent again by whoever claims it next."""
        for task in (*self._at_work, *([self._task] if self._task else [])):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def step(self) -> int:
        """Take up lanes, as many as there is room for: how many it was."""
        room = self._most - len(self._at_work)
        if room <= 0:
            await asyncio.wait(self._at_work, return_when=asyncio.FIRST_COMPLETED)
            return 1
        lanes = await self._lanes.claim(room)
        for lane in lanes:
            task = asyncio.create_task(self._work(lane))
            self._at_work.add(task)
            task.add_done_callback(self._left)
        return len(lanes)

    async def settle(self) -> None:
        """Wait for the lanes that were taken up."""
        while self._at_work:
            await asyncio.gather(*self._at_work)

    def _left(self, task: "asyncio.Task[None]") -> None:
        self._at_work.discard(task)
        self._wake.set()

    async def _work(self, lane: Lane) -> None:
        with acting_for(lane.tenant):
            try:
                for _ in range(IN_A_ROW):
                    due = await self._lanes.first(lane)
                    if due is None or not await self._deliver(due):
                        return
                await self._lanes.release(lane)
            except Exception as error:  # its lease runs out
                log.warning("a delivery could not be made: %s: %s", type(error).__name__, error)

    async def _deliver(self, due: Due) -> bool:
        began, tried = time.monotonic(), due.delivery.tried
        sent: Sent | None
        if (found := lost(tried, self._retry)) is not None:
            sent = Sent("later", error="whoever tried it did not live to tell the end")
        else:
            self.figures.attempts += 1
            sent = await self._attempt(due)
            found = verdict(sent, tried.after(time.monotonic() - began), self._retry, self._chance())
        seconds = time.monotonic() - began
        more = await self._lanes.ended(due, sent, found, seconds)
        self.figures.delivered += found.status == "delivered"
        self.figures.failed += found.status == "failed"
        return more

    async def _attempt(self, due: Due) -> Sent | None:
        try:
            async with asyncio.timeout(self._within):
                return await self._transport.send(due)
        except TimeoutError:
            return Sent("later", error=f"no answer within {self._within:g} s")
        except Exception as error:
            log.exception("a delivery failed")
            return Sent("later", error=type(error).__name__)


async def looking(step: Callable[[], Awaitable[int]], trouble: str, wake: asyncio.Event | None = None) -> None:
    """Do `step` again and again: at once while it finds work, after `wake`, and else after a pause."""
    worked, pause, told = time.monotonic(), AWAKE, ""
    wake = wake or asyncio.Event()
    while True:
        wake.clear()
        try:
            if await step():
                worked, pause, told = time.monotonic(), AWAKE, ""
                continue
            pause = AWAKE if time.monotonic() - worked < DOZE else ASLEEP
        except Exception as error:
            pause = min(2 * pause, TROUBLE)
            if told != (told := f"{trouble} at the moment: {type(error).__name__}: {error}"):
                log.warning("%s", told)
        try:
            async with asyncio.timeout(pause):
                await wake.wait()
        except TimeoutError:
            continue
