"""One tenant at 50 times its share beside nine at theirs, in virtual time: what it costs them is the policies' doing.

Arrivals and calls take exactly as long as they say; `benchmarks fairness` measures the same on a real machine.
"""

import asyncio
import random

import pytest

from tests.unit.policies_world import END, Wire, World

PLACES, TENANTS, FIRST, REST = 32, 9, 0.6, 0.7
SHARE = PLACES / (FIRST + REST) / (TENANTS + 1)  # calls a second
WARM, MEASURED = 8.0, 12.0


async def first_tokens(load, flood, fair=True, arrivals="even", seed=1):
    """Seconds from arrival to first token of the well-behaved tenants' calls, sorted."""
    dice = random.Random(seed)
    world = World(Wire([]), max_connections=PLACES)

    async def think():
        await world.clock.sleep(FIRST)

    async def talk():
        await world.clock.sleep(REST)

    world.wire.plans = [[think, "x", talk, END]]
    begin = world.clock.now
    due = []
    for tenant in range(TENANTS):
        rate = load * SHARE
        at = tenant / TENANTS / rate
        while at < WARM + MEASURED:
            due.append((at, f"t{tenant}"))
            at += 1 / rate if arrivals == "even" else dice.expovariate(rate)
    if flood:
        due += [(WARM + number / (50 * SHARE), "flood") for number in range(int(50 * SHARE * MEASURED))]
    asked = []
    for at, tenant in sorted(due):
        await world.clock.advance(begin + at - world.clock.now)
        asked.append((at, tenant, world.ask(tenant=tenant if fair else "all")))
    await world.clock.advance(6)
    waits = []
    for at, tenant, one in asked:
        if tenant != "flood" and at >= WARM:
            record = one.trace[0] if one.trace else None
            waits.append(float("inf") if record is None or record.first is None else record.first - begin - at)
        one.task.cancel()
    await asyncio.gather(*(one.task for _, _, one in asked), return_exceptions=True)
    return sorted(waits)


def p99(waits):
    return waits[int(0.99 * len(waits))]


@pytest.mark.parametrize("load", [0.8, 1.0])
async def test_the_others_first_tokens_are_at_most_a_fifth_later(load):
    alone, beside = await first_tokens(load, flood=False), await first_tokens(load, flood=True)
    assert p99(beside) <= 1.2 * p99(alone)


async def test_without_fair_queueing_they_would_wait_for_the_whole_flood():
    assert p99(await first_tokens(0.5, flood=True, fair=False)) > 5 * FIRST
