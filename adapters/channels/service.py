"""A channel over a WebSocket to a messaging service, which we open (docs/service-channel.md).

Of several processes one holds a channel's connection; what the others have to say goes through him.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from adapters.channels.service_connection import Pace
from adapters.channels.service_frames import tell
from adapters.channels.service_line import ServiceLine, Woken
from adapters.outgoing import Outgoing
from domain.channels import SEND_WITHIN, Binding, Channel, ChannelState, Kind, Outbound, OutboundType, Receive, Sent
from domain.errors import Unavailable
from domain.ids import new_id
from domain.lines import LineCalls, LineLeases, NoAnswer, Order

log = logging.getLogger("brain.channels")

MARGIN = 0.5  # seconds of `SEND_WITHIN` that are left for what is around the sending


async def nobody_waits(channel: Channel) -> None:
    """`Woken` where nothing waits for a connection."""


class ServiceChannel:
    """`domain.channels.ChannelPort`. A process that never calls `connect` holds nothing, and asks who does."""

    kind: Kind = "service"

    def __init__(
        self,
        leases: LineLeases,
        calls: LineCalls,
        outgoing: Outgoing,
        woken: Woken = nobody_waits,
        pace: Pace | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`outgoing`: not open yet; this opens and closes it."""
        self._leases, self._calls, self._outgoing = leases, calls, outgoing
        self._woken, self._pace, self._now = woken, pace or Pace(), now
        self._lines: dict[str, ServiceLine] = {}
        self._receive: Receive | None = None
        self._open = False

    def on_receive(self, receive: Receive) -> None:
        self._receive = receive

    @property
    def connected(self) -> int:
        """How many connections are up in this process."""
        return sum(line.state.connected is True for line in self._lines.values() if line.held)

    async def connect(self, channels: Sequence[Channel]) -> None:
        assert self._receive is not None
        if not self._open:
            await self._outgoing.__aenter__()
            self._open = True
            self._calls.on_order(self._obey)
        wanted = {channel.id: channel for channel in channels}
        for id, line in list(self._lines.items()):
            if id not in wanted or _how(wanted[id]) != _how(line.channel):
                del self._lines[id]
                await line.close()
            else:
                line.channel = wanted[id]
        for id, channel in wanted.items():
            if id not in self._lines:
                self._lines[id] = ServiceLine(
                    channel, self._leases, self._outgoing, self._receive, self._woken, self._pace
                )

    async def send(self, channel: Channel, out: Outbound) -> Sent:
        if out.type == "receipt" and not channel.settings.get("receipts", True):
            return Sent("taken")
        frame = tell(channel, out)
        if (line := self._held(channel.id)) is not None:
            return await line.send(frame)
        try:
            answer = await self._ask(channel, {"do": "send", "frame": frame})
        except NoAnswer as error:  # the service may have been told, and dawdle: that is an attempt
            return Sent("later", error=str(error))
        if answer is None:
            return Sent("later", error="nobody holds a connection to the service", ours=True)
        return Sent(**answer)

    async def typing(self, channel: Channel, binding: Binding, typing: bool, user: str | None = None) -> None:
        if not channel.settings.get("typing", True):
            return
        kind: OutboundType = "typing"
        data = {"typing": typing, "user": user}
        frame = tell(
            channel,
            Outbound(new_id("evt"), kind, binding.conversation, binding.thread, binding.user, self._now(), data),
        )
        if (line := self._held(channel.id)) is not None:
            await line.tell(frame)
        elif (held := await self._leases.look(channel)) is not None:
            await self._calls.tell(held.holder, {"do": "tell", "channel_id": channel.id, "frame": frame})

    async def status(self, channel: Channel) -> ChannelState:
        if (line := self._held(channel.id)) is not None:
            return line.state
        try:
            held = await self._leases.look(channel)
        except Unavailable as error:
            return ChannelState(None, problem=str(error))
        return ChannelState(False, problem="nobody holds a connection") if held is None else held.state

    async def heartbeat(self, channel: Channel) -> bool:
        if (line := self._held(channel.id)) is not None:
            return await line.ping()
        try:
            answer = await self._ask(channel, {"do": "ping"})
        except NoAnswer:
            return False
        return answer is not None and bool(answer["answers"])

    async def reconnect(self, channel: Channel) -> None:
        if (line := self._held(channel.id)) is not None:
            line.again()
        elif (held := await self._leases.look(channel)) is not None:
            await self._calls.tell(held.holder, {"do": "reconnect", "channel_id": channel.id})

    async def close(self) -> None:
        lines, self._lines = list(self._lines.values()), {}
        for line in lines:
            await line.close()
        await self._calls.close()
        if self._open:
            await self._outgoing.__aexit__()

    def _held(self, channel_id: str) -> ServiceLine | None:
        line = self._lines.get(channel_id)
        return line if line is not None and line.held else None

    async def _ask(self, channel: Channel, order: Order) -> Mapping[str, Any] | None:
        """None where nobody was asked. Raises `NoAnswer`."""
        try:
            held = await self._leases.look(channel)
            if held is None:
                return None
            return await self._calls.ask(held.holder, {**order, "channel_id": channel.id}, SEND_WITHIN - MARGIN)
        except Unavailable as error:
            log.debug("who holds a channel cannot be asked: %s", error)
            return None

    async def _obey(self, order: Order) -> Mapping[str, Any]:
        """What another process asks of the one that holds."""
        line, do = self._held(order["channel_id"]), order["do"]
        if do == "send":
            sent = Sent("later", error="the connection is another's by now")
            sent = sent if line is None else await line.send(order["frame"])
            told = dataclasses.asdict(sent)
            return {name: value for name, value in told.items() if value}  # without what code of before does not know
        if do == "ping":
            return {"answers": line is not None and await line.ping()}
        if line is not None and do == "tell":
            await line.tell(order["frame"])
        elif line is not None and do == "reconnect":
            line.again()
        return {}


def _how(channel: Channel) -> tuple[Any, ...]:
    """What a connection depends on."""
    return channel.settings.get("url"), channel.secrets
