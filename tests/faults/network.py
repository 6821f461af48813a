"""Faults of the network between the service and its stores."""

import random
from collections.abc import Callable
from typing import Literal

from tests.faults.proxy import Mode
from tests.faults.world import World


def lose(store: Literal["database", "journal"], mode: Mode) -> Callable[[World, random.Random], Callable[[], None]]:
    """One of the ways in which a connection fails, for all of them."""

    def act(world: World, drawn: random.Random) -> Callable[[], None]:
        proxy = world.database if store == "database" else world.journal
        proxy.mode = mode

        def undo() -> None:
            proxy.mode = "pass"

        return undo

    return act
