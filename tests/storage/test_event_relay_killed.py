"""Relays as processes, killed while events are written: nothing lost, nothing out of its conversation's order."""

import asyncio
import random
import subprocess
import sys
import threading
import uuid
from collections import Counter
from itertools import groupby
from pathlib import Path

import psycopg
import pytest

from domain.ids import new_id
from tests.storage.events_world import until

ROOT = Path(__file__).parents[2]
LEASE = 0.6
WRITERS, CONVERSATIONS, PAUSE = 3, 8, 0.002


class Relays:
    """Two at any time, one of which works."""

    def __init__(self, url: str, redis_url: str) -> None:
        self._command = [sys.executable, "-m", "tests.storage.relay_process", url, redis_url]
        self._url = url
        self._alive: dict[str, subprocess.Popen[bytes]] = {}
        for _ in range(2):
            self._begin()

    def _begin(self) -> None:
        holder = str(uuid.uuid4())
        self._alive[holder] = subprocess.Popen([*self._command, holder, str(LEASE)], cwd=ROOT)

    async def kill(self, after: float) -> None:
        """The one that works, at any moment of it."""

        def leader() -> str | None:
            with psycopg.connect(self._url) as connection:
                row = connection.execute(
                    "SELECT holder::text FROM brain.relays WHERE until > clock_timestamp()"
                ).fetchone()
            return row[0] if row and row[0] in self._alive else None

        holder = await until(leader, 60)
        await asyncio.sleep(after)
        process = self._alive.pop(holder)
        process.kill()
        process.wait()
        self._begin()

    def end(self) -> None:
        for process in self._alive.values():
            process.kill()
            process.wait()


class Writers:
    """Threads that write rows of many conversations, each of which one thread has for itself."""

    def __init__(self, url: str, tenant: str) -> None:
        self.written: Counter[str] = Counter()
        self._url, self._tenant, self._over = url, tenant, threading.Event()
        self._threads = [threading.Thread(target=self._write, args=[n]) for n in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def _write(self, seed: int) -> None:
        chance = random.Random(seed)
        mine = [new_id("conv") for _ in range(CONVERSATIONS)]
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._over.is_set():
                conversation = chance.choice(mine)
                with connection.transaction():
                    for _ in range(chance.choice((1, 1, 3))):
                        connection.execute(
                            "INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES (%s, 'message.received',"
                            " jsonb_build_object('conversation_id', %s::text, 'seq', %s::int))",
                            [self._tenant, conversation, self.written[conversation]],
                        )
                        self.written[conversation] += 1
                self._over.wait(PAUSE)

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize(("kills", "emptied"), [(50, 0), (9, 3)], ids=["killed", "killed and Redis emptied"])
async def test_whoever_is_killed_nothing_is_lost_or_out_of_order(events, name, kills, emptied, record_property):
    chance = random.Random(kills)
    relays, writers = Relays(events.url, events.redis_url), Writers(events.url, name)
    try:
        for n in range(kills):
            await relays.kill(chance.uniform(0, 0.3))
            if emptied and n % emptied == 0:
                await events.redis.flushall()
        writers.end()
        await until(lambda: events.waiting() == 0, 60)
        if emptied:
            await until(lambda: _told_again(events), 60)
    finally:
        writers.end()
        relays.end()
    told = await events.of_tenant(name)
    once = {event.id: event for event in told}  # in the order in which each came first
    by_key = sorted(once.values(), key=lambda event: event.key)
    found = {key: [event.data["seq"] for event in group] for key, group in groupby(by_key, lambda event: event.key)}
    assert found == {key: list(range(count)) for key, count in writers.written.items()}
    record_property("events", len(once))
    record_property("repeated", len(told) - len(once))
    print(f"{len(once)} events, {len(told) - len(once)} repeated, {kills} kills")


def _told_again(events) -> bool:
    with psycopg.connect(events.url) as connection:
        marker, again = connection.execute("SELECT marker::text, again_after FROM brain.relays").fetchone()
    return again is None and marker is not None
