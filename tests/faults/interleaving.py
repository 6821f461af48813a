"""A scheduler that lets one host go on at a time, from one point where it can be paused to the next.

A host is a coroutine. It pauses before a call of the database, inside of it (its work is done, its transaction open),
and after it (the commit has happened, the answer has not arrived). All else runs between two points without a choice,
so a run is told by its choices alone, and can be played again from them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Point(StrEnum):
    BEFORE = "before"
    INSIDE = "inside"
    AFTER = "after"


class Move(StrEnum):
    GO = "goes on"
    CUT = "loses its connection"
    DIE = "dies"


@dataclass(frozen=True, slots=True)
class Gate:
    """Where a host waits. `claim`: the epoch and the activation with which the call writes; None where it has none."""

    host: str
    point: Point
    call: str
    claim: tuple[int, str] | None
    opened: asyncio.Future[None] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Choice:
    gate: Gate
    move: Move

    def __str__(self) -> str:
        return f"{self.gate.host} {self.move} {self.gate.point} {self.gate.call}"


Pick = Callable[[Sequence[Choice]], int]
Committed = Callable[[Gate], Awaitable[None]]


class Unplayable(Exception):
    """A schedule names a choice that this run does not have, or nothing goes on although a host has not ended."""


class Interleaving:
    """One run. `pick` chooses among what can happen next; `blocked` tells which server processes wait for a lock.

    At most `faults` times one of `harms` befalls a host of `mortal`. A host whose next step touches nothing that is
    shared goes first: its order with the others makes no difference. `quiet`: turns of the event loop without work
    for the database, after which a host does nothing more by itself.
    """

    def __init__(
        self,
        pick: Pick,
        blocked: Callable[[set[int]], Awaitable[set[int]]],
        faults: int = 0,
        mortal: str = "",
        harms: Sequence[Move] = (Move.CUT, Move.DIE),
        quiet: int = 20,
    ) -> None:
        self.schedule: list[str] = []
        self._pick, self._blocked, self._quiet = pick, blocked, quiet
        self._faults, self._mortal, self._harms = faults, mortal, harms
        self._gates: dict[str, Gate] = {}
        self._working: set[int] = set()  # server processes that have something to do for a host
        self._open: dict[str, int] = {}  # those that wait, with a transaction open
        self._changed = asyncio.Event()

    # What a host's connections say.

    def works(self, process: int) -> None:
        self._working.add(process)
        self._changed.set()

    def rests(self, process: int) -> None:
        self._working.discard(process)
        self._changed.set()

    async def pause(self, host: str, point: Point, call: str, claim: tuple[int, str] | None, process: int) -> None:
        """Wait to be chosen. Raises `ConnectionResetError` for a lost connection, and is cancelled for a death."""
        gate = Gate(host, point, call, claim, asyncio.get_running_loop().create_future())
        assert host not in self._gates, "a host does one call at a time"
        self._gates[host] = gate
        if point is Point.INSIDE:
            self._open[host] = process
        self.rests(process)
        try:
            await gate.opened
        finally:
            self._open.pop(host, None)
            self.works(process)

    # The run.

    async def run(self, hosts: dict[str, Coroutine[Any, Any, None]], committed: Committed) -> None:
        """Run the hosts to their ends; `committed` is told of each commit, before anything else happens."""
        tasks = {name: asyncio.create_task(work) for name, work in hosts.items()}
        try:
            await self._settle()
            while self._gates:
                choices = self._choices()
                choice = choices[self._pick(choices)]
                self.schedule.append(str(choice))
                self._open_gate(choice)
                await self._settle()
                if choice.gate.point is Point.INSIDE and choice.move is Move.GO:
                    await committed(choice.gate)
            if not all(task.done() for task in tasks.values()):
                raise Unplayable("a host waits for what never comes")
        finally:
            for gate in self._gates.values():
                gate.opened.cancel()
            for task in tasks.values():
                task.cancel()
            ends = await asyncio.gather(*tasks.values(), return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def _choices(self) -> list[Choice]:
        waiting = [self._gates[host] for host in sorted(self._gates)]
        gates = [gate for gate in waiting if gate.point is Point.AFTER][:1] or waiting
        return [Choice(gate, move) for gate in gates for move in self._moves(gate)]

    def _moves(self, gate: Gate) -> list[Move]:
        if not self._faults or gate.host not in self._mortal:
            return [Move.GO]
        spared = Move.CUT if gate.point is Point.BEFORE else None  # nothing was sent that could be lost
        return [Move.GO, *(harm for harm in self._harms if harm is not spared)]

    def _open_gate(self, choice: Choice) -> None:
        gate = self._gates.pop(choice.gate.host)
        if choice.move is Move.GO:
            gate.opened.set_result(None)
            return
        self._faults -= 1
        if choice.move is Move.CUT:
            gate.opened.set_exception(ConnectionResetError("the connection broke"))
        else:
            gate.opened.cancel()

    async def _settle(self) -> None:
        """Return when no host goes on by itself: each waits at a point or for a lock of one that does, or has ended."""
        quiet, stuck = 0, set[int]()
        while quiet < self._quiet:
            self._changed.clear()
            if self._working <= stuck:
                quiet += 1
                await asyncio.sleep(0)
            elif self._open:
                stuck = await self._blocked(set(self._open.values()))
            else:
                await self._changed.wait()
            if self._changed.is_set():
                quiet, stuck = 0, set()
