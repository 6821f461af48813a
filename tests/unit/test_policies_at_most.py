"""Places at a provider: how many there are, who gets the next one, and what rate limits have to say."""

import asyncio
import itertools

import pytest

from deployments.policies import QueueFull
from deployments.policies.rate_limits import RateLimits, budgets_of, seconds_of
from deployments.providers import ProviderFailure
from tests.unit.policies_world import END, Clock, Gate, Wire, World, route_of


def gated(number):
    """A wire whose answers wait, each at its own gate."""
    gates = [Gate() for _ in range(number)]
    return gates, Wire(*([gate, "x", END] for gate in gates))


async def test_no_more_calls_than_the_provider_and_the_model_allow():
    gates, wire = gated(10)
    world = World(wire, max_connections=3, model={"concurrency": 2})
    asked = [world.ask(model="m") for _ in range(4)] + [world.ask(model="other") for _ in range(4)]
    await world.clock.settle()
    assert (wire.active, world.policies.at_most.waiting["p"]) == (3, 5)
    for gate in gates:
        gate.open.set()
    await world.clock.until_done(*(one.task for one in asked))
    assert (wire.most, wire.active, world.policies.at_most.waiting["p"]) == (3, 0, 0)


async def test_a_model_at_its_bound_does_not_hold_up_the_others():
    gates, wire = gated(4)
    world = World(wire, max_connections=2, model={"concurrency": 1})
    first, second, third = world.ask(), world.ask(), world.ask(model="other")
    await world.clock.settle()
    assert [route.id for route, _ in wire.calls] == ["m", "other"]
    for gate in gates:
        gate.open.set()
    await world.clock.until_done(first.task, second.task, third.task)


async def test_one_tenants_flood_stands_behind_the_others_next_call():
    gates, wire = gated(40)
    world = World(wire, max_connections=1)
    flood = [world.ask(tenant="flood") for _ in range(30)]
    await world.clock.settle()
    other = world.ask(tenant="other")
    await world.clock.settle()
    gates[0].open.set()
    await world.clock.settle()
    gates[1].open.set()
    await world.clock.settle()
    assert "other" in [request.tenant for _, request in wire.calls[:3]]
    for gate in gates:
        gate.open.set()
    await world.clock.until_done(other.task, *(one.task for one in flood))


async def test_waiting_is_told_in_the_trace():
    gates, wire = gated(2)
    world = World(wire, max_connections=1)
    first, second = world.ask(), world.ask()
    await world.clock.settle()
    await world.clock.advance(3)
    for gate in gates:
        gate.open.set()
    await world.clock.until_done(first.task, second.task)
    assert (first.trace[0].waited, second.trace[0].waited) == (0, 3)
    assert world.counting.attempt(second.trace[0]).waited_ms == 3000


async def test_a_full_queue_refuses_whoever_has_most_in_it():
    gates, wire = gated(20)
    world = World(wire, max_connections=1, max_waiting=4)
    flood = [world.ask(tenant="flood") for _ in range(7)]
    await world.clock.settle()
    refused = [one for one in flood if one.task.done()]
    assert len(refused) == 2
    assert all(isinstance(one.failure, QueueFull) for one in refused)
    other = world.ask(tenant="other")
    await world.clock.settle()
    assert sum(one.task.done() for one in flood) == 3
    for gate in gates:
        gate.open.set()
    await world.clock.until_done(other.task)
    assert other.text == "x"


async def test_cancelled_callers_give_their_places_back_wherever_they_are():
    gates, wire = gated(20)
    world = World(wire, max_connections=2)
    asked = [world.ask() for _ in range(8)]
    await world.clock.settle()
    for one in asked[1:7]:
        one.task.cancel()
    await world.clock.settle()
    for gate in gates:
        gate.open.set()
    await world.clock.until_done(asked[0].task, asked[7].task)
    assert (asked[0].text, asked[7].text) == ("x", "x")
    assert (wire.active, world.policies.at_most.waiting["p"]) == (0, 0)
    later = [world.ask() for _ in range(2)]
    await world.clock.until_done(*(one.task for one in later))


async def test_a_place_granted_to_a_caller_that_leaves_in_the_same_moment_is_not_lost():
    gates, wire = gated(5)
    world = World(wire, max_connections=1)
    first, second = world.ask(), world.ask()
    await world.clock.settle()
    gates[0].open.set()
    while not first.task.done():
        await asyncio.sleep(0)
        if world.policies.at_most.waiting["p"] == 0:
            second.task.cancel()
    second.task.cancel()
    await world.clock.settle()
    for gate in gates:
        gate.open.set()
    third = world.ask()
    await world.clock.until_done(third.task)
    assert third.text == "x"


async def test_a_new_bound_holds_for_those_who_wait_already():
    gates, wire = gated(6)
    world = World(wire, max_connections=1)
    asked = [world.ask() for _ in range(4)]
    await world.clock.settle()
    world.catalog.providers[0].max_connections = 4
    asked.append(world.ask())
    await world.clock.settle()
    assert wire.active == 4
    for gate in gates:
        gate.open.set()
    await world.clock.until_done(*(one.task for one in asked))


# Rate limits.


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("12", 12),
        ("2026-01-01T00:00:10Z", 10),
        ("", None),
        ("soon", None),
        ("1x", None),
        (None, None),
    ],
)
def test_resets_are_read_in_all_their_spellings(value, seconds):
    assert seconds_of(value, wall=1767225600.0) == (None if seconds is None else pytest.approx(seconds))


def test_openais_and_anthropics_headers_mean_the_same():
    openai = {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "7",
        "x-ratelimit-reset-requests": "30s",
    }
    anthropic = {
        "anthropic-ratelimit-requests-limit": "100",
        "anthropic-ratelimit-requests-remaining": "7",
        "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:30Z",
    }
    wall = 1767225600.0
    assert budgets_of(openai, 0.0, wall) == budgets_of(anthropic, 0.0, wall)
    assert budgets_of({"x-ratelimit-remaining-requests": "seven", "x-ratelimit-reset-requests": "1s"}, 0, 0) == {}


def limits_after(**headers):
    clock = Clock()
    limits, route = RateLimits(clock.monotonic), route_of()
    limits.learn(route, 200, {name.replace("_", "-"): value for name, value in headers.items()})
    return clock, limits, route


def paced(kind, remaining, limit=100, reset="60s"):
    return {
        f"x_ratelimit_{what}_{kind}": str(value)
        for what, value in (("limit", limit), ("remaining", remaining), ("reset", reset))
    }


def test_calls_slow_down_before_the_limit_and_the_limit_is_not_overrun():
    clock, limits, route = limits_after(**paced("requests", 12))
    began = clock.now
    starts = []
    while clock.now < began + 60:
        while (pause := limits.pause(route, 100)) > 0:
            clock.now += pause
        if clock.now < began + 60:
            limits.begin(route, 100)
            starts.append(clock.now - began)
    assert starts[:2] == [0, 0]  # down to a tenth of the limit nothing is held back
    assert 8 <= len(starts) <= 12
    assert max(b - a for a, b in itertools.pairwise(starts)) < 30


def test_tokens_are_a_limit_too():
    clock, limits, route = limits_after(**paced("tokens", 900, limit=1000))
    assert limits.pause(route, 100) == 0
    limits.begin(route, 850)
    assert limits.pause(route, 100) == pytest.approx(60)
    clock.now += 60
    assert limits.pause(route, 100) == 0


def test_another_model_is_not_held_back():
    _, limits, route = limits_after(**paced("requests", 0))
    assert limits.pause(route, 1) == pytest.approx(60)
    assert limits.pause(route_of("other"), 1) == 0


async def test_after_a_429_nobody_calls_until_retry_after():
    tooMany = ProviderFailure("429", retryable=True, retry_after=7, status=429)
    world = World(Wire([tooMany], ["x", END]), retries=1)
    world.policies.limits.learn(route_of(), 429, {"Retry-After": "7"})
    asked = [world.ask(tenant=f"t{number}") for number in range(5)]
    await world.clock.advance(6.9)
    assert world.wire.calls == []
    await world.clock.advance(0.2)
    await world.clock.until_done(*(one.task for one in asked))
    assert [one.text for one in asked] == ["x"] * 5


async def test_where_another_model_may_answer_nobody_waits_long_for_a_rate_limit():
    world = World(Wire(["x", END]))
    world.policies.limits.learn(route_of(), 429, {"Retry-After": "7"})
    asked = world.ask(alternatives=True)
    await world.clock.settle()
    assert "rate limit" in str(asked.failure)
    assert world.clock.slept == []


async def test_fairness_holds_while_calls_are_paced():
    """Who waits for a rate limit waits in the fair queue, not in the order of arrival."""
    world = World(Wire(["x", END]))
    flood = [world.ask(tenant="flood") for _ in range(1)]
    await world.clock.until_done(flood[0].task)
    world.policies.limits.learn(
        route_of(),
        200,
        {f"x-ratelimit-{k}-requests": v for k, v in {"limit": "100", "remaining": "10", "reset": "60s"}.items()},
    )
    flood = [world.ask(tenant="flood") for _ in range(20)]
    await world.clock.settle()
    other = world.ask(tenant="other")
    await world.clock.settle()
    await world.clock.until_done(other.task)
    assert sum(one.task.done() for one in flood) <= 2
    for one in flood:
        one.task.cancel()
    await world.clock.settle()


EXHAUSTED = {
    "x-ratelimit-limit-requests": "100",
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-reset-requests": "1h",
}


@pytest.mark.parametrize("alternatives", [True, False])
async def test_nobody_waits_an_hour_until_a_used_up_limit_is_reset(alternatives):
    world = World(Wire(["x", END]), retries=2)
    world.policies.limits.learn(route_of(), 200, EXHAUSTED)
    asked = world.ask(alternatives=alternatives)
    await world.clock.settle()
    assert "3600 s (rate limit)" in str(asked.failure)
    assert (world.clock.slept, world.wire.calls) == ([], [])
    other = world.ask(model="other")
    await world.clock.until_done(other.task)
    assert other.text == "x"


async def test_who_waits_for_a_place_does_not_wait_for_a_block_of_an_hour_too():
    gates, wire = gated(3)
    world = World(wire, model={"concurrency": 1})
    first, waiting = world.ask(), [world.ask(tenant=tenant) for tenant in "abc"]
    await world.clock.settle()
    world.policies.limits.learn(route_of(), 429, {"Retry-After": "3600"})
    await world.clock.settle()
    assert ["rate limit" in str(one.failure) for one in waiting] == [True] * 3
    gates[0].open.set()
    await world.clock.until_done(first.task)
    assert (first.text, world.policies.at_most.waiting["p"]) == ("x", 0)


async def test_a_call_that_may_not_wait_so_long_does_not_hold_up_those_behind_it():
    gates, wire = gated(3)
    world = World(wire, model={"concurrency": 1})
    first = world.ask()
    await world.clock.settle()
    hasty, patient = world.ask(tenant="a", alternatives=True), world.ask(tenant="b")
    await world.clock.settle()
    world.policies.limits.learn(route_of(), 200, {**EXHAUSTED, "x-ratelimit-reset-requests": "10s"})
    for gate in gates:
        gate.open.set()
    await world.clock.until_done(first.task, hasty.task)
    assert ("rate limit" in str(hasty.failure), patient.task.done()) == (True, False)
    await world.clock.until_done(patient.task)
    assert (patient.text, world.clock.slept) == ("x", [10])
