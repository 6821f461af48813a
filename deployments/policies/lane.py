"""Places for calls, and a fair queue of those that wait for one."""

import asyncio
from collections.abc import Awaitable, Callable

from deployments.policies import Call, QueueFull
from deployments.policies.fair_queue import Entry, FairQueue
from deployments.policies.shares import SWEEP, Shares
from deployments.providers import ProviderFailure

Sleep = Callable[[float], Awaitable[None]]


class Waiting:
    """A call in a lane. `outcome`: True with a place; False to go on without one; or an exception."""

    __slots__ = ("call", "outcome")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()


class Lane:
    """So many places, and a fair queue for them. `pause` says how long the next call should wait nevertheless, and
    raises `ProviderFailure` where that is too long for it."""

    def __init__(
        self,
        provider: str,
        pause: Callable[[Call, float], float],
        begin: Callable[[Call, float], None],
        sleep: Sleep,
        monotonic: Callable[[], float],
    ) -> None:
        self.provider = provider
        self.bound: int | None = None
        self.queue: FairQueue[Waiting] = FairQueue()
        self._busy, self._shares = 0, Shares(monotonic)
        self._pause, self._begin, self._sleep, self._monotonic = pause, begin, sleep, monotonic
        self._waking: tuple[float, asyncio.Task[None]] | None = None  # when, and who does it

    async def enter(self, call: Call, cost: float, room: int) -> bool:
        """Wait for a place; True if there is one to give back. Raises `QueueFull` where `room` wait already, and what
        `pause` raises."""
        tenant, weight = call.request.tenant, _weight(call)
        self._shares.asks(tenant, weight)
        if not self.queue and self._may(call) and self._pause(call, cost) <= 0:
            self.queue.pass_by(tenant, weight, cost)
            self._occupy(call, cost)
            return True
        waiting = Waiting(call)
        entry = self.queue.push(tenant, weight, cost, waiting)
        self._serve()
        if len(self.queue) > room and not waiting.outcome.done():
            crowding = self.queue.crowding(tenant, weight) or entry
            self._dismiss(crowding, _full(crowding.item.call))
        try:
            return await waiting.outcome
        except asyncio.CancelledError:
            if waiting.outcome.done() and not waiting.outcome.cancelled() and waiting.outcome.exception() is None:
                if waiting.outcome.result():
                    self.leave(call)
            else:
                self.queue.remove(entry)
            raise

    def leave(self, call: Call) -> None:
        """Give the place of this call back."""
        self._busy -= 1
        self._shares.gives(call.request.tenant)
        self._serve()

    def release(self, name: str) -> None:
        """Let all that wait for this model go on without a place: they will be refused."""
        for entry in self.queue.entries():
            if entry.item.call.name == name:
                self._dismiss(entry, None)

    def recheck(self) -> None:
        """Pauses have become longer: refuse all that would wait too long."""
        for entry in self.queue.entries():
            self._pause_of(entry)

    @property
    def idle(self) -> bool:
        return not self._busy and not self.queue

    def _may(self, call: Call) -> bool:
        return self.bound is None or self._shares.may(call.request.tenant, _weight(call), self._busy, self.bound)

    def _occupy(self, call: Call, cost: float) -> None:
        self._busy += 1
        self._shares.takes(call.request.tenant, _weight(call))
        self._begin(call, cost)

    def _serve(self) -> None:
        while self.queue and (entry := self.queue.head(lambda entry: self._may(entry.item.call))) is not None:
            call, outcome = entry.item.call, entry.item.outcome
            if (pause := self._pause_of(entry)) is None:
                continue
            if pause > 0:
                self._wake_after(pause)
                return
            self.queue.take(entry)
            if not outcome.done():
                self._occupy(call, entry.cost)
                outcome.set_result(True)
        if self.queue and self.bound is not None and self._busy < self.bound:
            self._wake_after(SWEEP)  # places are kept for others, who may never come

    def _pause_of(self, entry: Entry[Waiting]) -> float | None:
        """None where it was too long, and the call has been refused."""
        try:
            return self._pause(entry.item.call, entry.cost)
        except ProviderFailure as failure:
            self._dismiss(entry, failure)
            return None

    def _dismiss(self, entry: Entry[Waiting], failure: ProviderFailure | None) -> None:
        self.queue.remove(entry)
        if not entry.item.outcome.done():
            if failure is None:
                entry.item.outcome.set_result(False)
            else:
                entry.item.outcome.set_exception(failure)

    def _wake_after(self, pause: float) -> None:
        at = self._monotonic() + pause
        if self._waking is not None:
            if self._waking[0] <= at:
                return
            self._waking[1].cancel()
        self._waking = at, asyncio.create_task(self._wake(pause))

    async def _wake(self, pause: float) -> None:
        await self._sleep(pause)
        self._waking = None
        self._shares.sweep()
        self._serve()


def _weight(call: Call) -> float:
    return max(call.request.weight, 1e-6)


def _full(call: Call) -> QueueFull:
    return QueueFull(f"too many calls wait for provider {call.route.provider.name!r}")
