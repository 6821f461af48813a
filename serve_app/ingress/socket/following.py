"""Turns whose events go to a socket: from the first one, or from where its client left off, to the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from domain.commands import Accepted, Ended
from domain.errors import BrainError, Overloaded
from domain.events import DELTA, TERMINAL, Event, Position
from serve_app.ingress.context import Visit
from serve_app.ingress.limiting import leave
from serve_app.ingress.parts import Parts
from serve_app.ingress.replay import accepted, events_after
from serve_app.ingress.sending import beginning
from serve_app.ingress.socket import frames
from serve_app.ingress.socket.connection import SLOW, Connection
from serve_app.ingress.streams import TurnStream

STALLED = 30.0  # seconds that a client may take none of the events that wait for it


@dataclass(slots=True)
class Following:
    """`watched`: it is followed because its conversation is. `task`: None as long as the turn is being accepted."""

    conversation: str
    watched: bool
    task: "asyncio.Task[None] | None" = None


class Follower:
    """Brings events of one tenant's turns to sockets."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def reserve(self, socket: Connection, turn_id: str, conversation: str, watched: bool = False) -> Following:
        """From now on the socket follows this turn, and begins with the next call."""
        if socket.following is None:
            socket.following = {}
        made = socket.following[turn_id] = Following(conversation, watched)
        return made

    def begin(
        self,
        socket: Connection,
        tenant: str,
        turn_id: str,
        source: AsyncIterator[list[Event]],
        visit: Visit | None = None,
    ) -> None:
        following: Following = (socket.following or {})[turn_id]
        following.task = socket.spawn(self._bring(socket, tenant, turn_id, following.conversation, source, visit))

    def begun(self, tenant: str, turn_id: str) -> AsyncIterator[list[Event]]:
        """The events of a turn that was accepted a moment ago, wherever that was."""
        return TurnStream(self._parts, tenant, turn_id, Position()).batches()

    def sent(self, tenant: str, result: Accepted | Ended) -> AsyncIterator[list[Event]]:
        """The events of a turn that was just sent."""
        return _of_sent(self._parts, tenant, result)

    def resumed(self, tenant: str, turn_id: str, after: Position | None) -> AsyncIterator[list[Event]]:
        """Those after a position; None: from the beginning."""
        return _resumed(self._parts, tenant, turn_id, after)

    async def _bring(
        self,
        socket: Connection,
        tenant: str,
        turn_id: str,
        conversation: str,
        source: AsyncIterator[list[Event]],
        visit: Visit | None,
    ) -> None:
        over = False
        try:
            async with aclosing(source):  # type: ignore[type-var]
                async for batch in source:
                    for event in batch:
                        socket.push(frames.event(conversation, event))
                        over = over or event.type in TERMINAL
                    if visit is not None and visit.admitted is not None and any(one.type == DELTA for one in batch):
                        visit.admitted.first_text()
                    if not await _taken(socket):
                        return
            if not over and not (await self._parts.reader.turn_state(tenant, turn_id)).ended:
                raise Overloaded("the events of this turn cannot be followed any more: subscribe again")
        except BrainError as problem:
            socket.push(frames.error(problem, None, turn_id=turn_id, conversation_id=conversation))
        finally:
            socket.end_turn(turn_id)
            if visit is not None:
                settle(self._parts, visit)


def settle(parts: Parts, visit: Visit) -> None:
    """What a frame took of its caller's limits is given back, or goes with the turn that it began."""
    if visit.admitted is not None:
        visit.admitted.leave()
        visit.admitted = None
    if visit.entry is not None:
        leave(parts, visit.entry)
        visit.entry = None


async def _taken(socket: Connection) -> bool:
    try:
        async with asyncio.timeout(STALLED):
            await socket.room()
    except TimeoutError:
        socket.close(SLOW, "the client reads too slowly: connect again and resume after the last event")
    return socket.closing is None


async def _of_sent(parts: Parts, tenant: str, result: Accepted | Ended) -> AsyncIterator[list[Event]]:
    turn_id = result.turn.id
    if isinstance(result, Accepted):
        yield [accepted(turn_id, result.user_message, result.journalled)]
        stream = TurnStream(parts, tenant, turn_id, beginning(result), result.journalled)
    else:
        stream = TurnStream(parts, tenant, turn_id, Position(), journalled=False)
    async for batch in stream.batches():
        yield batch


async def _resumed(parts: Parts, tenant: str, turn_id: str, given: Position | None) -> AsyncIterator[list[Event]]:
    stored = await parts.reader.stored_turn(tenant, turn_id)
    turn, position = stored.turn, given or Position()
    if turn.status.ended:
        yield events_after(stored, position)
        return
    if given is None:
        yield [accepted(turn.id, stored.user_message)]
        position = Position(1, 1)
    if position.attempt < turn.attempt:
        position = Position(turn.attempt, 0)
    async for batch in TurnStream(parts, tenant, turn.id, position).batches():
        yield batch
