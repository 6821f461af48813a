"""One connection to a service, from its welcome to its end."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from adapters.channels import service_frames as frames
from adapters.channels.service_inflow import Inflow, refusal
from adapters.outgoing import ForbiddenUrl, Outgoing, OutgoingFailed
from adapters.standard_webhooks import sign
from domain.channels import Channel, Inbound, Received, Sent
from domain.lines import Grip


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds. `heartbeat`: between two pings; `answer`: until a pong, a welcome, or a frame that is written must be
    through; `ack`: for which an acknowledgement is waited for; `patience`: for a connection that is not up; `first`
    and `longest`: pauses between connections; `steady`: after which one counts as good; `store`: for which it is tried
    to store what came in."""

    heartbeat: float = 20.0
    answer: float = 10.0
    ack: float = 11.0
    patience: float = 2.0
    first: float = 0.5
    longest: float = 60.0
    steady: float = 30.0
    store: float = 30.0


class Broken(Exception):
    """The connection has ended. `code`: of ours to close it with. `after`: seconds that the service asks to wait."""

    def __init__(self, words: str, code: int = frames.LEAVING, after: float | None = None) -> None:
        super().__init__(words)
        self.code, self.after = code, after


class ServiceConnection:
    """`open`, then `run` until it raises `Broken`."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        receive: Callable[[Inbound], Awaitable[Received]],
        grip: Grip,
        pace: Pace,
    ) -> None:
        self._socket, self._pace = socket, pace
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.inflow = Inflow(receive, self.say, self._give_up, grip.resume, patience=pace.store)
        self._acks: dict[str, asyncio.Future[Sent]] = {}
        self._pongs: dict[str, asyncio.Future[None]] = {}
        self._heard = time.monotonic()
        self._full = False

    @classmethod
    async def open(
        cls,
        outgoing: Outgoing,
        channel: Channel,
        receive: Callable[[Inbound], Awaitable[Received]],
        grip: Grip,
        pace: Pace,
    ) -> "ServiceConnection":
        """Raises `Broken`."""
        signed = sign(channel.secrets, f"{channel.id}.{grip.epoch}", int(time.time()), b"")
        try:
            socket = await outgoing.socket(str(channel.settings["url"]), signed)
        except (ForbiddenUrl, OutgoingFailed) as error:
            raise Broken(str(error)) from None
        made = cls(socket, receive, grip, pace)
        try:
            await made._greet(channel, grip)
        except BaseException as error:
            await made._close(error.code if isinstance(error, Broken) else frames.LEAVING)
            raise
        return made

    async def run(self) -> None:
        """Raises `Broken`."""
        tasks = {asyncio.create_task(self._read()), asyncio.create_task(self._beat())}
        code = frames.LEAVING
        try:
            done, _ = await asyncio.wait({*tasks, self._over}, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        except Broken as broken:
            code = broken.code
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.inflow.close()
            for waiting in self._acks.values():
                if not waiting.done():
                    waiting.set_result(Sent("later", error="the connection broke before it was acknowledged"))
            for asked in self._pongs.values():
                asked.cancel()
            if not self._over.cancel():
                self._over.exception()  # somebody has looked at it
            await self._close(code)

    async def send(self, frame: Mapping[str, Any]) -> Sent:
        """Tell, and wait for the acknowledgement."""
        id = str(frame["id"])
        acknowledged = self._acks.get(id)
        if acknowledged is None:
            acknowledged = self._acks[id] = asyncio.get_running_loop().create_future()
        try:
            await self.say(frame)
            async with asyncio.timeout(self._pace.ack):
                return await asyncio.shield(acknowledged)
        except Broken as broken:
            return Sent("later", error=str(broken))
        except TimeoutError:
            return Sent("later", error=f"not acknowledged within {self._pace.ack:g} s")
        finally:
            if self._acks.get(id) is acknowledged:
                del self._acks[id]

    async def ping(self) -> bool:
        id = uuid.uuid4().hex
        answered = self._pongs[id] = asyncio.get_running_loop().create_future()
        try:
            await self.say({"frame": "ping", "id": id})
            async with asyncio.timeout(self._pace.answer):
                await answered
            return True
        except (Broken, TimeoutError, asyncio.CancelledError):
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            return False
        finally:
            del self._pongs[id]

    async def say(self, frame: Mapping[str, Any]) -> None:
        """Raises `Broken`."""
        try:
            async with asyncio.timeout(self._pace.answer):
                await self._socket.send_str(frames.written(frame))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            words = "the service reads nothing" if isinstance(error, TimeoutError) else "the connection broke"
            self.end(Broken(words, frames.NO_ANSWER))
            raise Broken(words, frames.NO_ANSWER) from None

    def end(self, broken: Broken) -> None:
        if not self._over.done():
            self._over.set_exception(broken)

    def _give_up(self, reason: str) -> None:
        self.end(Broken(reason, frames.TRY_AGAIN))

    async def _greet(self, channel: Channel, grip: Grip) -> None:
        await self.say(
            {
                "frame": "hello",
                "version": frames.VERSION,
                "channel_id": channel.id,
                "epoch": grip.epoch,
                "resume": grip.resume,
                "window": frames.WINDOW,
            }
        )
        try:
            async with asyncio.timeout(self._pace.answer):
                answer = await self._next()
        except TimeoutError:
            raise Broken("the service said no welcome", frames.NO_ANSWER) from None
        except frames.BadFrame:
            raise Broken("the service did not begin with a welcome", frames.BAD_FRAME) from None
        if isinstance(answer, frames.Bye):
            raise Broken(f"the service said goodbye: {answer.reason}", after=answer.after)
        if not isinstance(answer, frames.Welcome):
            raise Broken("the service did not begin with a welcome", frames.BAD_FRAME)
        if answer.version != frames.VERSION:
            raise Broken(f"the service speaks version {answer.version}", frames.OTHER_VERSION)

    async def _next(self) -> frames.Frame:
        """Raises `Broken`, `BadFrame`."""
        raw = await self._socket.receive()
        self._heard = time.monotonic()
        if raw.type is aiohttp.WSMsgType.TEXT:
            return frames.read(raw.data)
        if raw.type is aiohttp.WSMsgType.BINARY:
            raise Broken("the service sent bytes", frames.BAD_FRAME)
        code = self._socket.close_code
        if raw.type is aiohttp.WSMsgType.ERROR:
            raise Broken(f"the service sent what cannot be read, or too much of it: {code}")
        if code in (None, 1006):
            raise Broken("the connection broke")
        ours = frames.SUPERSEDED if code == frames.SUPERSEDED else frames.LEAVING
        raise Broken(f"the service closed the connection: {code}", ours)

    async def _read(self) -> None:
        while True:
            try:
                frame = await self._next()
            except frames.BadFrame as bad:
                if bad.id is None:
                    raise Broken(f"the service sent what is no frame: {bad}", frames.BAD_FRAME) from None
                await self.say(refusal(bad.id, "invalid_frame", str(bad)))
                continue
            await self._take(frame)

    async def _take(self, frame: frames.Frame) -> None:
        if isinstance(frame, frames.Tell):
            self._full = True
            await self.inflow.take(frame)
            self._full, self._heard = False, time.monotonic()
        elif isinstance(frame, frames.Ack):
            self._settle(frame.id, Sent("taken"))
        elif isinstance(frame, frames.Refusal):
            words = f"{frame.code}: {frame.message}" if frame.message else frame.code
            self._settle(frame.id, Sent("gone" if frame.gone else "later", after=frame.after, error=words))
        elif isinstance(frame, frames.Ping):
            await self._beaten(frame)
        elif isinstance(frame, frames.Bye):
            raise Broken(f"the service said goodbye: {frame.reason}", after=frame.after)
        else:
            raise Broken("the service said welcome twice", frames.BAD_FRAME)

    def _settle(self, id: str, sent: Sent) -> None:
        waiting = self._acks.get(id)
        if waiting is not None and not waiting.done():
            waiting.set_result(sent)

    async def _beaten(self, frame: frames.Ping) -> None:
        if frame.frame == "ping":
            await self.say({"frame": "pong", "id": frame.id})
        elif (asked := self._pongs.get(frame.id)) is not None and not asked.done():
            asked.set_result(None)

    async def _beat(self) -> None:
        """A service that answers no ping, and says nothing else, is gone. What waits unread is no silence of its."""
        while True:
            await asyncio.sleep(self._pace.heartbeat)
            asked = time.monotonic()
            if not await self.ping() and self._heard < asked and not self._full:
                raise Broken("the service answers no ping", frames.NO_ANSWER)

    async def _close(self, code: int) -> None:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                if code == frames.LEAVING and not self._socket.closed:
                    await self._socket.send_str(frames.written({"frame": "bye", "reason": "leaving", "after": 0}))
                await self._socket.close(code=code)
