"""What happens to the nodes while clients work. All times are seconds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from tests.nodes.service import Service
from tests.nodes.space import Machine
from tests.nodes.stores import DATABASE_PORT, JOURNAL_PORT

Place = TypeVar("Place")
Told = Callable[[str], None]
DEADLINE = 150  # of a drained node: what Serve needs for replacements, and graceful_shutdown_timeout_s (60) besides
WITHOUT = 20.0  # from a node's death until another one takes its place


@dataclass(frozen=True, slots=True)
class Scenario(Generic[Place]):
    """`act` does it to a place, and returns when it is over. `seconds`: how long clients go on behind that, at least.
    `strict`: no request may fail that a client which follows `retry-after` would notice."""

    name: str
    act: Callable[[Place], None]
    seconds: float = 30.0
    strict: bool = False


def worker(service: Service) -> Machine:
    """The node besides the head that runs now."""
    return next(
        machine
        for name, machine in service.space.machines.items()
        if name in service.started and machine is not service.head
    )


def spare(service: Service) -> Machine:
    return next(machine for name, machine in service.space.machines.items() if name not in service.started)


def replaced(service: Service) -> None:
    """Another node joins, the old one is drained, and goes away at its deadline."""
    old, new = worker(service), spare(service)
    service.start_node(new)
    service.joined(new)
    service.drain(old, DEADLINE)
    drained = time.monotonic()
    service.wait([new])
    time.sleep(max(0.0, drained + DEADLINE - time.monotonic()))
    service.kill_node(old)


def died(service: Service) -> None:
    old, new = worker(service), spare(service)
    service.kill_node(old)
    died_at = time.monotonic()
    time.sleep(max(0.0, died_at + WITHOUT - time.monotonic()))
    service.start_node(new)
    service.wait([new])


def cut(seconds: float, to_worker: bool = True, to_head: bool = True) -> Callable[[Service], None]:
    """Nothing arrives at the one, at the other, or at both."""

    def act(service: Service) -> None:
        far = worker(service)
        with _healed(far, service.head):
            if to_worker:
                far.drop()
            if to_head:
                service.head.drop("from", far.address)
            time.sleep(seconds)

    return act


def no_stores(seconds: float, *ports: int) -> Callable[[Service], None]:
    """What the worker asks of PostgreSQL or Redis does not arrive."""

    def act(service: Service) -> None:
        far = worker(service)
        with _healed(service.head):
            for port in ports:
                service.head.drop("from", far.address, "ipproto", "tcp", "dport", str(port))
            time.sleep(seconds)

    return act


@contextmanager
def _healed(*machines: Machine) -> Iterator[None]:
    try:
        yield
    finally:
        for machine in machines:
            machine.hear()


SCENARIOS = (
    Scenario("drain", replaced, strict=True),
    Scenario("death", died),
    Scenario("cut-5", cut(5)),
    Scenario("cut-15", cut(15)),
    Scenario("cut-40", cut(40), 60),
    Scenario("worker-deaf-15", cut(15, to_head=False)),
    Scenario("head-deaf-15", cut(15, to_worker=False)),
    Scenario("no-stores-20", no_stores(20, DATABASE_PORT, JOURNAL_PORT)),
    Scenario("no-postgres-20", no_stores(20, DATABASE_PORT)),
    Scenario("no-redis-20", no_stores(20, JOURNAL_PORT)),
)
