"""Faults of processes: they die, or stand still; what Redis holds is gone."""

import random
import signal
from collections.abc import Callable
from contextlib import suppress

import psutil
import redis

from tests.faults.world import World


def nothing() -> None:
    """Undoes what needs no undoing."""


def one_of(world: World, drawn: random.Random, title: str) -> psutil.Process | None:
    """One of the processes with this title; None while there is none."""
    found = sorted(world.brain.processes(title), key=lambda process: process.pid)
    return drawn.choice(found) if found else None


def kill(title: str) -> Callable[[World, random.Random], Callable[[], None]]:
    """SIGKILL for one of the processes with this title."""

    def act(world: World, drawn: random.Random) -> Callable[[], None]:
        if chosen := one_of(world, drawn, title):
            with suppress(psutil.NoSuchProcess):
                chosen.kill()
        return nothing

    return act


def freeze(title: str) -> Callable[[World, random.Random], Callable[[], None]]:
    """SIGSTOP for one of them, and SIGCONT."""

    def act(world: World, drawn: random.Random) -> Callable[[], None]:
        chosen = one_of(world, drawn, title)
        if chosen is None:
            return nothing
        with suppress(psutil.NoSuchProcess):
            chosen.suspend()

        def resume() -> None:
            with suppress(psutil.NoSuchProcess):
                chosen.resume()

        return resume

    return act


def end_postgres(how: signal.Signals) -> Callable[[World, random.Random], Callable[[], None]]:
    """Its supervisor starts it again."""

    def act(world: World, drawn: random.Random) -> Callable[[], None]:
        for process in world.brain.processes("bin/postgres"):
            with suppress(psutil.NoSuchProcess):
                if "-D" in process.cmdline():
                    process.send_signal(how)
        return nothing

    return act


def flush_redis(world: World, drawn: random.Random) -> Callable[[], None]:
    """Everything in it is gone."""
    with suppress(redis.RedisError), redis.Redis.from_url(world.brain.redis_url, socket_timeout=2) as client:
        client.flushall()
    return nothing
