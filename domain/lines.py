"""Connections of channels, each held by one process at a time: who holds it, and how the others reach him."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from domain.channels import Channel, ChannelState
from domain.errors import BrainError


class NoAnswer(BrainError):
    """The process that holds this channel's connection did not answer in time: what was asked may have been done."""


@dataclass(frozen=True, slots=True)
class Grip:
    """`epoch`: greater than that of any grip on this channel before, so that the other side can tell old from new.
    `resume`: the cursor up to which everything that the channel told was answered."""

    epoch: int
    resume: str | None = None


@dataclass(frozen=True, slots=True)
class Held:
    holder: str
    state: ChannelState


class LineLeases(Protocol):
    """Who holds a channel's connection. Methods raise `Unavailable`."""

    lease: float
    """Seconds after which a grip that was not renewed is another's to take."""

    async def take(self, channel: Channel) -> Grip | None:
        """None while another one holds it."""
        ...

    async def renew(self, channel: Channel, grip: Grip, state: ChannelState, resume: str | None) -> bool:
        """Tell how the connection is and how far it was answered; False where the grip is lost, and nothing is told."""
        ...

    async def release(self, channel: Channel, grip: Grip) -> None: ...

    async def look(self, channel: Channel) -> Held | None: ...


Order = Mapping[str, Any]
Obey = Callable[[Order], Awaitable[Mapping[str, Any]]]


class LineCalls(Protocol):
    """Words between the processes, kept nowhere. Methods raise `Unavailable`."""

    def on_order(self, obey: Obey) -> None:
        """Take orders from now on, in the background; `obey` answers each."""
        ...

    async def ask(self, holder: str, order: Order, within: float) -> Mapping[str, Any] | None:
        """His answer; None where he is not there. Raises `NoAnswer` where he heard, and says nothing within so many
        seconds; `Unavailable` also where no answer could be heard."""
        ...

    async def tell(self, holder: str, order: Order) -> None:
        """Whatever he answers; lost where he is not there."""
        ...

    async def close(self) -> None: ...
