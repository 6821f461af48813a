"""Faults of the machine: clocks jump, the disk is slow or full, an event loop is blocked, no memory is left."""

import random
import subprocess
import sys
from collections.abc import Callable
from itertools import count

import psutil

from tests.faults.processes import nothing, one_of
from tests.faults.world import World

JUMPS = (-3600.0, -10.0, -2.0, 2.0, 10.0, 120.0, 3600.0, 2 * 86400.0)  # seconds
DELAYS = (0.02, 0.1, 0.5)  # seconds of an fsync
MORE = 0.01  # share of the memory, over that from which on Ray ends processes
_slots = count()


def jump(title: str) -> Callable[[World, random.Random], Callable[[], None]]:
    """The wall clock of one process and its children is wrong for a while, and then right again: two jumps."""

    def act(world: World, drawn: random.Random) -> Callable[[], None]:
        chosen, seconds, slot = one_of(world, drawn, title), drawn.choice(JUMPS), next(_slots)
        if chosen is None:
            return nothing
        world.shim.clock(slot, chosen.pid, seconds)
        return lambda: world.shim.clock(slot, 0, 0.0)

    return act


def full_disk(world: World, drawn: random.Random) -> Callable[[], None]:
    """PostgreSQL crashes, and cannot recover until there is space."""
    world.shim.disk(full=True)
    return world.shim.disk


def slow_disk(world: World, drawn: random.Random) -> Callable[[], None]:
    world.shim.disk(delay=drawn.choice(DELAYS))
    return world.shim.disk


def block(title: str) -> Callable[[World, random.Random], Callable[[], None]]:
    """Nothing of its Python runs, while its other threads do."""

    def act(world: World, drawn: random.Random) -> Callable[[], None]:
        if chosen := one_of(world, drawn, title):
            world.shim.block(chosen.pid, drawn.uniform(0.5, 5.0))
        return nothing

    return act


def fill_memory(world: World, drawn: random.Random) -> Callable[[], None]:
    """Until Ray's monitor ends processes."""
    memory = psutil.virtual_memory()
    wanted = round((world.memory + MORE) * memory.total) - (memory.total - memory.available)
    hold = f"held = bytearray({max(wanted, 0)}); held[::4096] = b'1' * len(held[::4096]); input()"
    balloon = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE)

    def undo() -> None:
        balloon.kill()
        balloon.wait()

    return undo
