"""The live events of running turns: who writes them, and who follows them."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from domain.events import Event, Position
from domain.generation import GenerationRequest, Outcome


@dataclass(frozen=True, slots=True)
class Progress:
    """What the journal holds of an attempt. `sealed`: how the generation ended; `alive`: its heartbeat is fresh;
    `closed`: nothing more can be said in this attempt. `rounds`: the generations that ended with calls of tools, in
    order."""

    events: list[Event]
    sealed: Outcome | None
    alive: bool
    closed: bool = False
    rounds: tuple["RoundEnd", ...] = ()


@dataclass(frozen=True, slots=True)
class RoundEnd:
    """The end of a generation that called tools: `n` is the number of the last event before it, `number` its round."""

    n: int
    number: int
    outcome: Outcome


class Journal(Protocol):
    """The live events of running turns. Every method may raise `JournalUnavailable`; nothing durable depends on it."""

    async def append(
        self,
        tenant: str,
        turn_id: str,
        attempt: int,
        events: Sequence[tuple[str, dict[str, Any]]],
        after: int = 0,
        epoch: int = 0,
    ) -> int | None:
        """Append events and give the number of the last one. `epoch`: of the conversation's owner, who says them.

        None if nothing was appended: the attempt's stream has ended, it no longer holds `after` events, or a later
        owner has read it. A terminal event is also taken by a sealed stream, and so is the owner's
        text, which leaves it sealed.
        """
        ...

    async def claim(self, request: GenerationRequest, writer: str) -> bool:
        """Become the one writer of an attempt's deltas; False if another one is alive."""
        ...

    async def write(self, request: GenerationRequest, writer: str, deltas: Sequence[str], after: int) -> int | None:
        """Append one `message.delta` a text and renew the claim; as `append`."""
        ...

    async def beat(self, names: Sequence[GenerationRequest], writer: str) -> None:
        """Renew the claims of generations that have nothing to say at the moment."""
        ...

    async def seal(self, request: GenerationRequest, writer: str, outcome: Outcome) -> None:
        """Say that the generation has ended, and how; give the claim back."""
        ...

    async def progress(self, tenant: str, turn_id: str, attempt: int, epoch: int = 0) -> Progress:
        """All that an attempt's journal holds. From then on no owner of an earlier `epoch` adds to it."""
        ...

    async def supersede(self, tenant: str, turn_id: str, attempt: int, epoch: int = 0) -> None:
        """Tell the followers of `attempt` that another one has begun; as `append`."""
        ...


class Follower(Protocol):
    """Reads the journals of many turns at once."""

    def follow(self, tenant: str, turn_id: str, position: Position, kept: bool = True) -> AsyncIterator[list[Event]]:
        """Events after `position` as they come, across attempts; ends after the terminal one.

        A generation that is not `kept` has no terminal event: its stream ends where the generation has ended.

        An empty list where nothing came for some seconds: look into Postgres whether the turn has ended. Raises
        `JournalUnavailable`, and `Overloaded` for a reader so slow that it would hold memory.
        """
        ...
