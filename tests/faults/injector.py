"""Faults of a running Brain, from the outside: its processes die or stand still, and its stores are lost.

A campaign draws them from a seed. Each ends by itself or is undone, and the time until the service answers again is
measured: a message to a new conversation, whole, by another connection.
"""

import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import httpx
import psutil
import redis

from serve_app.embedded.folder import DataFolder
from serve_app.embedded.redis import Redis
from tests.e2e.brain import Brain

Undo = Callable[[], None]
PATIENCE = 90.0  # seconds within which the service answers again, or the campaign fails
TOGETHER = 0.25  # share of the faults that come with a second one
PAUSE = (0.2, 1.5)  # seconds between a recovery and the next fault


@dataclass(frozen=True, slots=True)
class Fault:
    """`act` does it and gives what undoes it, after a time drawn from `seconds`. `weight`: how often it is drawn."""

    name: str
    act: Callable[[Brain, random.Random], Undo]
    weight: int = 4
    seconds: tuple[float, float] = (0.0, 0.0)


@dataclass(slots=True)
class Injected:
    """Seconds of the monotonic clock; `recovered` is None where the service did not answer in time."""

    names: tuple[str, ...]
    began: float
    ended: float
    recovered: float | None = None


def _nothing() -> None:
    return


def kill(title: str) -> Callable[[Brain, random.Random], Undo]:
    """SIGKILL for one of the processes with this title."""

    def act(brain: Brain, drawn: random.Random) -> Undo:
        if found := sorted(brain.processes(title), key=lambda process: process.pid):
            with suppress(psutil.NoSuchProcess):
                drawn.choice(found).kill()
        return _nothing

    return act


def freeze(title: str) -> Callable[[Brain, random.Random], Undo]:
    """SIGSTOP for one of them, and SIGCONT."""

    def act(brain: Brain, drawn: random.Random) -> Undo:
        found = sorted(brain.processes(title), key=lambda process: process.pid)
        if not found:
            return _nothing
        chosen = drawn.choice(found)
        with suppress(psutil.NoSuchProcess):
            chosen.suspend()

        def resume() -> None:
            with suppress(psutil.NoSuchProcess):
                chosen.resume()

        return resume

    return act


def end_postgres(how: signal.Signals) -> Callable[[Brain, random.Random], Undo]:
    """Its supervisor starts it again."""

    def act(brain: Brain, drawn: random.Random) -> Undo:
        for process in brain.processes("bin/postgres"):
            with suppress(psutil.NoSuchProcess):
                if "-D" in process.cmdline():
                    process.send_signal(how)
        return _nothing

    return act


def flush_redis(brain: Brain, drawn: random.Random) -> Undo:
    """Everything in it is gone."""
    folder = DataFolder(brain.data)
    url = Redis(folder, folder.recall("ports")["single"]["redis"]).url
    with suppress(redis.RedisError), redis.Redis.from_url(url, socket_timeout=2) as client:
        client.flushall()
    return _nothing


def both(*acts: Callable[[Brain, random.Random], Undo]) -> Callable[[Brain, random.Random], Undo]:
    def act(brain: Brain, drawn: random.Random) -> Undo:
        undone = [one(brain, drawn) for one in acts]

        def undo() -> None:
            for one in undone:
                one()

        return undo

    return act


HOST, INGRESS, LLM = (f"ServeReplica:brain:{name}" for name in ("ConversationHost", "Ingress", "HostedLLM"))
CLASSIFIER, EMBEDDER = (f"ServeReplica:brain:{name}" for name in ("IntentClassifier", "Embedder"))
FAULTS = (
    Fault("kill -9 of a host", kill(HOST), 8),
    Fault("kill -9 of an ingress", kill(INGRESS), 6),
    Fault("kill -9 of HostedLLM", kill(LLM), 6),
    Fault("kill -9 of the classifier", kill(CLASSIFIER), 3),
    Fault("kill -9 of the embedder", kill(EMBEDDER), 2),
    Fault("kill -9 of the proxy", kill("ray::HAProxyManager"), 2),
    Fault("kill -9 of Serve's controller", kill("ray::ServeController"), 2),
    Fault("a host stands still", freeze(HOST), 6, (0.5, 6.0)),
    Fault("an ingress stands still", freeze(INGRESS), 4, (0.5, 4.0)),
    Fault("HostedLLM stands still", freeze(LLM), 4, (0.5, 5.0)),
    Fault("PostgreSQL crashes", end_postgres(signal.SIGQUIT), 4),
    Fault("PostgreSQL restarts", end_postgres(signal.SIGINT), 4),
    Fault("Redis dies", kill("redis-server"), 6),
    Fault("Redis stands still", freeze("redis-server"), 4, (0.5, 5.0)),
    Fault("Redis is flushed", flush_redis, 6),
    Fault("Redis and a host die", both(kill("redis-server"), kill(HOST)), 5),
    Fault("all hosts die", both(kill(HOST), kill(HOST)), 3),
)
HEAVY = (
    Fault("kill -9 of the raylet", kill("/raylet/raylet"), 1),
    Fault("kill -9 of the GCS", kill("gcs_server"), 1),
)
"""With what Ray itself cannot go on from at once: everything starts anew."""


@dataclass(slots=True)
class Injector:
    """Draws faults from `seed` and does them, one after another, until `stop` is set."""

    brain: Brain
    seed: int
    faults: tuple[Fault, ...] = FAULTS
    injected: list[Injected] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        drawn = random.Random(self.seed)
        while self.faults and not self.stop.wait(drawn.uniform(*PAUSE)):
            number = 2 if drawn.random() < TOGETHER else 1
            chosen = drawn.choices(self.faults, [fault.weight for fault in self.faults], k=number)
            one = Injected(tuple(fault.name for fault in chosen), time.monotonic(), 0.0)
            self.injected.append(one)
            undo = [fault.act(self.brain, drawn) for fault in chosen]
            self.stop.wait(max(drawn.uniform(*fault.seconds) for fault in chosen))
            for back in undo:
                back()
            one.ended = time.monotonic()
            one.recovered = self._recovered(one.ended)
            if one.recovered is None:
                return

    def _recovered(self, since: float) -> float | None:
        """Seconds until a turn is answered; None if it never is."""
        while (now := time.monotonic()) - since < PATIENCE:
            try:
                with self.brain.client(self.brain.key) as client:
                    client.timeout = httpx.Timeout(5.0)
                    conversation = client.post("/api/v1/conversations", json={}).raise_for_status().json()["id"]
                    path = f"/api/v1/conversations/{conversation}/messages"
                    client.post(path, json={"content": "are you there", "model": "small"}).raise_for_status()
                return time.monotonic() - since
            except (httpx.HTTPError, KeyError, ValueError):
                time.sleep(max(0.0, 0.1 - (time.monotonic() - now)))
        return None
