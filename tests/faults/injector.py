"""Injects faults into a running service, one after another, and measures how long it takes to answer again.

A campaign draws them from a seed. Each ends by itself or is undone, and the time until the service answers again is
measured: a message to a new conversation, whole, by another connection.
"""

import random
import threading
import time
from dataclasses import dataclass, field

import httpx

from tests.faults.faults import FAULTS, Fault
from tests.faults.world import World

PATIENCE = 90.0  # seconds within which the service answers again, or the campaign fails
TOGETHER = 0.25  # share of the faults that come with a second one
PAUSE = (0.2, 1.5)  # seconds between a recovery and the next fault


@dataclass(slots=True)
class Injected:
    """Seconds of the monotonic clock; `recovered` is None where the service did not answer in time."""

    names: tuple[str, ...]
    began: float
    ended: float
    recovered: float | None = None


@dataclass(slots=True)
class Injector:
    """Draws faults from `seed` and does them, one after another, until `stop` is set."""

    world: World
    seed: int
    faults: tuple[Fault, ...] = FAULTS
    injected: list[Injected] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    gave_up: bool = False  # the service did not answer again within PATIENCE

    def run(self) -> None:
        drawn = random.Random(self.seed)
        while self.faults and not self.stop.wait(drawn.uniform(*PAUSE)):
            number = 2 if drawn.random() < TOGETHER else 1
            chosen = drawn.choices(self.faults, [fault.weight for fault in self.faults], k=number)
            one = Injected(tuple(fault.name for fault in chosen), time.monotonic(), 0.0)
            self.injected.append(one)
            undo = [fault.act(self.world, drawn) for fault in chosen]
            self.stop.wait(max(drawn.uniform(*fault.seconds) for fault in chosen))
            for back in undo:
                back()
            one.ended = time.monotonic()
            one.recovered = self._recovered(one.ended)
            if one.recovered is None:
                self.gave_up = True
                return

    def _recovered(self, since: float) -> float | None:
        """Seconds until a turn is answered; None if it never is."""
        while (now := time.monotonic()) - since < PATIENCE:
            try:
                with self.world.brain.client(self.world.brain.key) as client:
                    client.timeout = httpx.Timeout(5.0)
                    conversation = client.post("/api/v1/conversations", json={}).raise_for_status().json()["id"]
                    path = f"/api/v1/conversations/{conversation}/messages"
                    client.post(path, json={"content": "are you there", "model": "small"}).raise_for_status()
                return time.monotonic() - since
            except (httpx.HTTPError, KeyError, ValueError):
                time.sleep(max(0.0, 0.1 - (time.monotonic() - now)))
        return None
