"""`python -m tests.faults.put_back`: a process whose clock was put back hears of the replicas that start after it.

The clock of an ingress jumps two days ahead and back, Serve's controller dies, then both hosts. Were the ingress still
the same process, it would wait for ever for hosts that it knows no successors of, and each second message with it.
"""

import sys
import time

import httpx

from serve_app.clock import EVERY
from tests.conftest import wait_until
from tests.faults.world import World, service

AHEAD = 2 * 86400.0  # seconds
ASKED = 12


def main() -> int:
    """0: all messages are answered. 2: no clock can be changed here."""
    with service(seed=1) as world:
        if not world.shim.there:
            print("there is no C compiler here: clocks cannot be changed", file=sys.stderr)
            return 2
        _answered(world, 2)
        first = _pids(world, "Ingress")
        world.shim.clock(0, first[0], AHEAD)
        time.sleep(4 * EVERY)  # that it is seen ahead
        world.shim.clock(0, 0, 0.0)
        wait_until(lambda: first[0] not in (now := _pids(world, "Ingress")) and len(now) == 2, 60, what="a new ingress")
        _kill(world, "ServeController")
        _answered(world, 2)
        for host in world.brain.replicas("ConversationHost"):
            host.kill()
        wait_until(lambda: world.brain.serving("ConversationHost", 2), 90, what="the hosts")
        answered = _answered(world, ASKED)
    print(f"{answered} of {ASKED} messages were answered")
    return int(answered < ASKED)


def _pids(world: World, deployment: str) -> list[int]:
    return [process.pid for process in world.brain.replicas(deployment)]


def _kill(world: World, title: str) -> None:
    for process in world.brain.processes():
        if title in " ".join(process.cmdline()):
            process.kill()


def _answered(world: World, number: int) -> int:
    answered = 0
    for n in range(number):
        try:
            with world.brain.client(world.brain.key) as client:
                client.timeout = httpx.Timeout(5.0)
                for _ in range(n % 2):
                    client.get("/health")  # requests go to the ingresses in turns: that both get messages
                made = client.post("/api/v1/conversations", json={}).raise_for_status().json()["id"]
                said = {"content": "are you there", "model": "small"}
                client.post(f"/api/v1/conversations/{made}/messages", json=said).raise_for_status()
            answered += 1
        except httpx.HTTPError:
            continue
    return answered


if __name__ == "__main__":
    raise SystemExit(main())
