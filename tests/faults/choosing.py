"""Ways to choose what happens next in a run: all of them in turn, by lot, or as it went before."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from tests.faults.interleaving import Choice, Move, Pick, Unplayable

T = TypeVar("T")


def following(schedule: Sequence[str]) -> Pick:
    """Play a run again from its choices."""
    left = iter(schedule)

    def pick(choices: Sequence[Choice]) -> int:
        wanted = next(left, "the end of the schedule")
        with suppress(ValueError):
            return [str(choice) for choice in choices].index(wanted)
        raise Unplayable(f"{wanted!r} is none of {[str(choice) for choice in choices]}")

    return pick


def at_random(seed: int) -> Pick:
    """The same seed chooses alike. To go on is likelier than a fault, so that faults come late as well as early."""
    dice = random.Random(seed)

    def pick(choices: Sequence[Choice]) -> int:
        weights = [10 if choice.move is Move.GO else 1 for choice in choices]
        return dice.choices(range(len(choices)), weights)[0]

    return pick


async def exhaustively(play: Callable[[Pick], Awaitable[T]]) -> AsyncIterator[T]:
    """Every run that there is, depth first: each time the last choice that has another way takes it."""
    path: list[tuple[int, int]] = []  # (chosen, of how many)
    while True:
        taken: list[tuple[int, int]] = []

        yield await play(partial(_along, path, taken))
        path = taken
        while path and path[-1][0] + 1 == path[-1][1]:
            path.pop()
        if not path:
            return
        path[-1] = (path[-1][0] + 1, path[-1][1])


def _along(path: Sequence[tuple[int, int]], taken: list[tuple[int, int]], choices: Sequence[Choice]) -> int:
    chosen = path[len(taken)][0] if len(taken) < len(path) else 0
    taken.append((chosen, len(choices)))
    return chosen
