"""The faults that campaigns draw from: what each does to a running service, how often it is drawn, and for how long."""

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass

from tests.faults import machine, network, processes
from tests.faults.world import World

Undo = Callable[[], None]
Act = Callable[[World, random.Random], Undo]


@dataclass(frozen=True, slots=True)
class Fault:
    """`act` does it and gives what undoes it, after a time drawn from `seconds`. `weight`: how often it is drawn.
    `shim`: it needs a C compiler on this machine. `scarce`: Ray must find the memory full before it is. `embedded`: it
    reaches into the servers that `brain up` starts."""

    name: str
    act: Act
    weight: int = 4
    seconds: tuple[float, float] = (0.0, 0.0)
    shim: bool = False
    scarce: bool = False
    embedded: bool = False


def both(*acts: Act) -> Act:
    def act(world: World, drawn: random.Random) -> Undo:
        undone = [one(world, drawn) for one in acts]

        def undo() -> None:
            for one in undone:
                one()

        return undo

    return act


kill, freeze = processes.kill, processes.freeze
HOST, INGRESS, LLM = (f"ServeReplica:brain:{name}" for name in ("ConversationHost", "Ingress", "HostedLLM"))
CLASSIFIER, EMBEDDER, INDEXER, TRAINER, RELAY, TOOLS = (
    f"ServeReplica:brain:{name}"
    for name in ("IntentClassifier", "Embedder", "Indexer", "IntentTrainer", "Relay", "Tools")
)
POSTGRES, PGBOUNCER, REDIS = "bin/postgres", "pgbouncer", "redis-server"
FAULTS = (
    Fault("kill -9 of a host", kill(HOST), 8),
    Fault("kill -9 of an ingress", kill(INGRESS), 6),
    Fault("kill -9 of HostedLLM", kill(LLM), 6),
    Fault("kill -9 of the classifier", kill(CLASSIFIER), 3),
    Fault("kill -9 of the embedder", kill(EMBEDDER), 2),
    Fault("kill -9 of the indexer", kill(INDEXER), 2),
    Fault("kill -9 of the trainer", kill(TRAINER), 1),
    Fault("kill -9 of the relay", kill(RELAY), 2),
    Fault("kill -9 of what calls tools", kill(TOOLS), 1),
    Fault("kill -9 of the proxy", kill("ray::HAProxyManager"), 2),
    Fault("kill -9 of Serve's controller", kill("ray::ServeController"), 2),
    Fault("all hosts die", both(kill(HOST), kill(HOST)), 3),
    Fault("a host stands still", freeze(HOST), 6, (0.5, 6.0)),
    Fault("an ingress stands still", freeze(INGRESS), 4, (0.5, 4.0)),
    Fault("HostedLLM stands still", freeze(LLM), 4, (0.5, 5.0)),
    Fault("the classifier stands still", freeze(CLASSIFIER), 2, (0.5, 4.0)),
    Fault("the embedder stands still", freeze(EMBEDDER), 2, (0.5, 4.0)),
    Fault("the indexer stands still", freeze(INDEXER), 1, (0.5, 4.0)),
    Fault("the event loop of a host is blocked", machine.block(HOST), 4, (0.5, 4.0)),
    Fault("the event loop of an ingress is blocked", machine.block(INGRESS), 3, (0.5, 4.0)),
    Fault("the event loop of HostedLLM is blocked", machine.block(LLM), 3, (0.5, 4.0)),
    Fault("PostgreSQL crashes", processes.end_postgres(signal.SIGQUIT), 4),
    Fault("PostgreSQL restarts", processes.end_postgres(signal.SIGINT), 4),
    Fault("PostgreSQL's disk is full", machine.full_disk, 3, (0.3, 3.0), shim=True, embedded=True),
    Fault("PostgreSQL's disk is slow", machine.slow_disk, 4, (0.5, 4.0), shim=True, embedded=True),
    Fault("PostgreSQL's answers are lost", network.lose("database", "lose answers"), 6, (0.3, 2.0)),
    Fault("PostgreSQL's requests are lost", network.lose("database", "lose requests"), 3, (0.3, 2.0)),
    Fault("PostgreSQL cannot be heard", network.lose("database", "silent"), 3, (0.5, 4.0)),
    Fault("Redis dies", kill(REDIS), 6),
    Fault("Redis stands still", freeze(REDIS), 4, (0.5, 5.0)),
    Fault("Redis is flushed", processes.flush_redis, 6),
    Fault("Redis and a host die", both(kill(REDIS), kill(HOST)), 5),
    Fault("Redis' answers are lost", network.lose("journal", "lose answers"), 6, (0.3, 2.0)),
    Fault("Redis' requests are lost", network.lose("journal", "lose requests"), 3, (0.3, 2.0)),
    Fault("Redis cannot be heard", network.lose("journal", "silent"), 3, (0.5, 4.0)),
    Fault("the clock of PostgreSQL jumps", machine.jump(POSTGRES), 4, (0.5, 4.0), shim=True, embedded=True),
    Fault("the clock of Redis jumps", machine.jump(REDIS), 3, (0.5, 4.0), shim=True, embedded=True),
    Fault("the clock of a host jumps", machine.jump(HOST), 3, (0.5, 4.0), shim=True),
    Fault("the clock of an ingress jumps", machine.jump(INGRESS), 2, (0.5, 4.0), shim=True),
)
OF_THE_SYSTEM = (
    *(one for one in FAULTS if not one.embedded),
    Fault("kill -9 of PostgreSQL", processes.end_postgres(signal.SIGKILL), 4),
    Fault("kill -9 of PgBouncer", kill(PGBOUNCER), 6),
    Fault("PgBouncer stands still", freeze(PGBOUNCER), 4, (0.5, 4.0)),
    Fault("PgBouncer and a host die", both(kill(PGBOUNCER), kill(HOST)), 3),
)
"""With PostgreSQL behind PgBouncer, and Redis, of the system, which start again whatever of them dies."""
HEAVY = (
    Fault("kill -9 of the raylet", kill("/raylet/raylet"), 2),
    Fault("kill -9 of the GCS", kill("gcs_server"), 2),
    Fault("no memory is left", machine.fill_memory, 2, (1.0, 3.0), scarce=True),
)
"""From what Ray itself cannot go on at once: everything starts anew, or whatever Ray chooses is ended."""
