"""Plays two hosts against each other in one database, a new conversation a run."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from domain.conversation import ConversationKey
from domain.errors import NotFound
from domain.ids import new_id
from storage.conversations import PostgresConversations
from storage.postgres import Pool
from tests.faults.choosing import at_random, exhaustively
from tests.faults.gates import gated
from tests.faults.hosts import Host, Script
from tests.faults.interleaving import Gate, Interleaving, Move, Pick
from tests.faults.invariants import broken
from tests.faults.record import Commit, Record, read_state
from tests.servers.given import open_pool


@dataclass(frozen=True, slots=True)
class Game:
    """The hosts' scripts by name; at most `faults` times one of `harms` befalls one of `mortal`."""

    scripts: dict[str, Script]
    faults: int = 0
    mortal: str = ""
    harms: tuple[Move, ...] = (Move.CUT, Move.DIE)


@dataclass(frozen=True, slots=True)
class Played:
    """`broken`: the names of the invariants that the run broke, and how."""

    schedule: tuple[str, ...]
    broken: dict[str, str]
    record: Record

    def __str__(self) -> str:
        lines = [f"{name}: {how}" for name, how in self.broken.items()]
        return "\n".join([*lines, "after", *(f"    {choice!r}," for choice in self.schedule)])


@dataclass(frozen=True, slots=True)
class Arena:
    """A database of an owner who sees all tenants' rows. `host`: the class of the hosts."""

    pool: Pool
    watcher: "asyncpg.Connection[Any]"
    tenant: str
    host: type[Host] = Host

    async def play(self, game: Game, pick: Pick) -> Played:
        key = ConversationKey(self.tenant, new_id("conv"))
        sql = "INSERT INTO brain.conversations (tenant_id, id) VALUES ($1, $2)"
        await self.watcher.execute(sql, key.tenant, key.conversation)
        record = Record(await read_state(self.watcher, key))
        run = Interleaving(pick, self._blocked, game.faults, game.mortal, game.harms, self.host.quiet)

        async def committed(gate: Gate) -> None:
            record.commits.append(Commit(gate, await read_state(self.watcher, key)))

        hosts = {}
        for name, script in game.scripts.items():
            store = PostgresConversations(gated(self.pool, run, name))
            hosts[name] = self.host(name, key, store, record.told).run(script)
        await run.run(hosts, committed)
        try:
            found = await PostgresConversations(self.pool).activate(key, "00000000-0000-0000-0000-000000000000")
            record.inherited = [turn.turn.id for turn in found.unfinished]
        except NotFound:
            pass
        return Played(tuple(run.schedule), broken(record), record)

    async def exhaust(self, game: Game) -> AsyncIterator[Played]:
        async for played in exhaustively(lambda pick: self.play(game, pick)):
            yield played

    async def at_random(self, game: Game, seeds: Iterable[int]) -> AsyncIterator[Played]:
        for seed in seeds:
            yield await self.play(game, at_random(seed))

    async def _blocked(self, holders: set[int]) -> set[int]:
        """The server processes that wait for a lock which one of `holders` has."""
        sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pg_blocking_pids(pid) && $1"
        return {row[0] for row in await self.watcher.fetch(sql, list(holders))}


@asynccontextmanager
async def arena(url: str, tenant: str, host: type[Host] = Host) -> AsyncIterator[Arena]:
    pool = await open_pool(url, 4, 4)
    watcher = await asyncpg.connect(url)
    try:
        yield Arena(pool, watcher, tenant, host)
    finally:
        await watcher.close()
        await pool.close()
