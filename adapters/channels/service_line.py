"""The connection of one channel, as one of several processes sees it: taken, kept up, given up."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from adapters.channels.service_connection import Broken, Pace, ServiceConnection
from adapters.channels.service_frames import SUPERSEDED
from adapters.outgoing import Outgoing
from domain.channels import Channel, ChannelState, Inbound, Receive, Received, Sent
from domain.errors import Unavailable
from domain.lines import Grip, LineLeases

log = logging.getLogger("brain.channels")

Woken = Callable[[Channel], Awaitable[None]]


class ServiceLine:
    """`woken`: told when the connection is up, so that what waits is tried at once. `held`: whether this process holds
    the connection; while Redis cannot be asked it goes on to: the service lets in nobody with an older epoch."""

    def __init__(
        self, channel: Channel, leases: LineLeases, outgoing: Outgoing, receive: Receive, woken: Woken, pace: Pace
    ) -> None:
        self.channel, self._leases, self._outgoing = channel, leases, outgoing
        self._receive, self._woken, self._pace = receive, woken, pace
        self.held = self._closed = False
        self.state = ChannelState(False)
        self._resume: str | None = None
        self._connection: ServiceConnection | None = None
        self._up, self._changed, self._anew = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"line-{channel.id}")

    async def send(self, frame: Mapping[str, Any]) -> Sent:
        connection = await self._connected()
        return Sent("later", error=self._trouble) if connection is None else await connection.send(frame)

    async def tell(self, frame: Mapping[str, Any]) -> None:
        """Once, and without an acknowledgement."""
        if self._connection is not None:
            with contextlib.suppress(Broken):
                await self._connection.say(frame)

    async def ping(self) -> bool:
        return self._connection is not None and await self._connection.ping()

    def again(self) -> None:
        """A new connection, and now."""
        self._anew.set()
        if self._connection is not None:
            self._connection.end(Broken("a new connection was asked for"))

    async def close(self) -> None:
        self._closed = True  # also where the cancellation is lost: `asyncio.wait_for` of Python 3.11, in clients, may
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _connected(self) -> ServiceConnection | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pace.patience):
                await self._up.wait()
        return self._connection

    @property
    def _trouble(self) -> str:
        return f"no connection to the service: {self.state.problem or 'not yet'}"

    async def _run(self) -> None:
        while not self._closed:
            try:
                grip = await self._leases.take(self.channel)
            except Unavailable:
                grip = None
            if grip is not None:
                await self._hold(grip)
            if not self._closed:
                await asyncio.sleep(self._leases.lease / 3 * random.uniform(0.5, 1))

    async def _hold(self, grip: Grip) -> None:
        self.held, self.state, self._resume = True, ChannelState(False), grip.resume
        tasks = [asyncio.create_task(one) for one in (self._renew(grip), self._connect(grip))]
        try:
            if self._closed:
                return
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except Exception:
            log.exception("a channel's connection is given up")
        finally:
            self.held = False
            self._changed.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(Unavailable):
                await self._leases.release(self.channel, grip)

    async def _renew(self, grip: Grip) -> None:
        """Until the grip is lost."""
        while self.held:
            self._changed.clear()
            if self._connection is not None:
                self._resume = self._connection.inflow.resume
            with contextlib.suppress(Unavailable):
                if not await self._leases.renew(self.channel, grip, self.state, self._resume):
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._leases.lease / 3):
                    await self._changed.wait()

    async def _connect(self, grip: Grip) -> None:
        """Until the service knows of a newer grip."""
        pause, asked = self._pace.first, 0.0
        while True:
            began = time.monotonic()
            self._anew.clear()
            try:
                await self._once(Grip(grip.epoch, self._resume))
            except Broken as broken:
                self._show(ChannelState(False, datetime.now(UTC), str(broken)))
                if broken.code == SUPERSEDED:
                    return
                asked = broken.after or 0.0
            if time.monotonic() - began > self._pace.steady:
                pause = self._pace.first
            wait = max(pause * random.uniform(0.5, 1), asked)
            pause = min(2 * pause, self._pace.longest)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._anew.wait()

    async def _once(self, grip: Grip) -> None:
        """One connection. Raises `Broken`."""
        opened = await ServiceConnection.open(self._outgoing, self.channel, self._take, grip, self._pace)
        self._connection = opened
        self._up.set()
        self._show(ChannelState(True, datetime.now(UTC)))
        waking = asyncio.create_task(self._wake())
        try:
            await opened.run()
        finally:
            self._resume, self._connection = opened.inflow.resume, None
            self._up.clear()
            waking.cancel()

    async def _wake(self) -> None:
        """Twice: an attempt that failed just now may be entered only after the first."""
        for wait in (0.0, self._pace.patience + 1):
            await asyncio.sleep(wait)
            try:
                await self._woken(self.channel)
            except Unavailable as error:
                log.debug("what waits for a channel is tried when it is due: %s", error)

    async def _take(self, inbound: Inbound) -> Received:
        return await self._receive(self.channel, inbound)

    def _show(self, state: ChannelState) -> None:
        self.state = state
        self._changed.set()
