"""The events of a turn as they come: from the journal while it has them, from Postgres where it has not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from domain.errors import JournalUnavailable, NotFound, Overloaded, Unavailable
from domain.events import TERMINAL, Event, Position
from serve_app.ingress import metrics
from serve_app.ingress.parts import Parts
from serve_app.ingress.replay import events_after


class TurnStream:
    """One reader's way through the events of a kept turn, from `position` to the terminal event.

    `journalled`: whether a journal is there to be followed at first; one with a hole is not followed any further, for
    the numbers that a client sees have no gap. `last` is the terminal event, once it has been given out.
    """

    def __init__(self, parts: Parts, tenant: str, turn_id: str, position: Position, journalled: bool = True) -> None:
        self._parts, self._tenant, self._turn_id = parts, tenant, turn_id
        self._attempt, self._n = position.attempt, position.n
        self._journalled = journalled
        self._over = False
        self._silent_until = 0.0

    async def batches(self) -> AsyncIterator[list[Event]]:
        """Batches of events, each after the one before; an empty one after `keep_alive` seconds of silence.

        Ends after the terminal event; without one where the reader was too slow or the conversation was deleted.
        """
        self._spoke()
        while not self._ended():
            if self._journalled:
                async for batch in self._followed():
                    await self._settled(batch)
                    yield batch
                if self._ended():
                    return
            rest = await self._stored()
            if rest or self._silent():
                self._spoke()
                await self._settled(rest)
                yield rest
            if not self._ended():
                await asyncio.sleep(self._parts.settings.poll)

    async def _followed(self) -> AsyncIterator[list[Event]]:
        """What the journal has; ends where Postgres has to be asked."""
        while not self._ended() and self._journalled:
            position = Position(self._attempt, self._n)
            async with aclosing(self._follow(position)) as source:
                try:
                    while not self._ended() and self._journalled:
                        async with asyncio.timeout_at(self._silent_until):
                            batch = await anext(source)
                        fresh = self._fresh(batch) or (await self._stored() if not batch else [])
                        if fresh or self._silent():
                            self._spoke()
                            yield fresh
                        if self._attempt > position.attempt and not self._n:
                            break  # passed over: the source is that of an attempt which says nothing more
                except TimeoutError:  # the source is spent; another one goes on at the same position
                    self._spoke()
                    yield await self._stored()
                except Overloaded:
                    metrics.SLOW_READERS.inc()
                    self._over = True
                except (JournalUnavailable, StopAsyncIteration):
                    return

    def _follow(self, position: Position) -> Any:
        return self._parts.follower.follow(self._tenant, self._turn_id, position)

    def _fresh(self, batch: list[Event]) -> list[Event]:
        """The part of `batch` that the reader has not seen, up to a hole."""
        fresh = []
        for event in batch:
            if event.attempt < self._attempt or (event.attempt == self._attempt and event.n <= self._n):
                continue
            expected = self._n + 1 if event.attempt == self._attempt else 1
            if event.n != expected:
                self._journalled = False
                break
            self._attempt, self._n = event.attempt, event.n
            self._over = event.type in TERMINAL
            fresh.append(event)
        return fresh

    async def _stored(self) -> list[Event]:
        """The rest of the stream, if the turn has ended."""
        try:
            turn = await self._parts.reader.turn(self._tenant, self._turn_id)
            if not turn.status.ended:
                return self._passed_over(turn.attempt)
            stored = await self._parts.reader.stored_turn(self._tenant, self._turn_id)
        except NotFound:
            self._over = True
            return []
        except Unavailable:
            return []
        self._over = True
        rest = events_after(stored, Position(self._attempt, self._n))
        if not rest and self._attempt == stored.turn.attempt:  # the journal told more than was stored, but no end
            rest = [replace(events_after(stored, Position(self._attempt, 0))[-1], n=self._n + 1)]
        return rest

    def _passed_over(self, attempt: int) -> list[Event]:
        """A journal that was lost has not told that the reader's attempt was given up: he goes on with the next one."""
        if attempt > self._attempt and (self._n > 0 or self._attempt > 1):
            self._attempt, self._n = attempt, 0
            self._journalled = True
        return []

    async def _settled(self, batch: list[Event]) -> None:
        """Before the end is told: whoever hears it may send again at once."""
        if self._over and self._parts.limiter.turns:
            await self._parts.limiter.turn_ended(self._turn_id, _tokens(batch))

    def _ended(self) -> bool:
        return self._over

    def _spoke(self) -> None:
        self._silent_until = asyncio.get_running_loop().time() + self._parts.settings.keep_alive

    def _silent(self) -> bool:
        return asyncio.get_running_loop().time() >= self._silent_until


def _tokens(batch: list[Event]) -> int | None:
    """What the turn took, as its terminal event tells it."""
    told = batch[-1].data if batch else {}
    usage = told.get("usage") or (told.get("message") or {}).get("usage")
    return None if usage is None else usage["total_tokens"]
