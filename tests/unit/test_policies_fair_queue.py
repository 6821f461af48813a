"""Weighted fair queueing: shares by weight, nobody starves, nothing idles while somebody waits."""

import time
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.policies.fair_queue import FairQueue

TENANTS = st.sampled_from("abcd")
COSTS = st.floats(1, 1000)
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5, "d": 5.0}


def take(queue):
    entry = queue.head()
    queue.take(entry)
    return entry


@given(st.lists(st.tuples(TENANTS, COSTS), min_size=1, max_size=200))
def test_everything_is_taken_once_and_each_tenants_in_order(pushes):
    queue = FairQueue()
    for number, (tenant, cost) in enumerate(pushes):
        queue.push(tenant, WEIGHTS[tenant], cost, (tenant, number))
    taken = [take(queue).item for _ in range(len(queue))]
    assert sorted(number for _, number in taken) == list(range(len(pushes)))
    for tenant in WEIGHTS:
        numbers = [number for name, number in taken if name == tenant]
        assert numbers == sorted(numbers)
    assert len(queue) == 0
    assert queue.head() is None


@given(st.lists(st.lists(COSTS, min_size=60, max_size=60), min_size=4, max_size=4))
@settings(max_examples=50)
def test_tenants_that_always_wait_share_by_weight(costs):
    """Goyal et al., theorem 1: over any time in which both wait, two tenants' work by weight differs by no more than
    one entry of each."""
    queue, served = FairQueue(), Counter()
    left = dict(zip(WEIGHTS, (list(each) for each in costs), strict=True))
    for tenant, each in left.items():
        for cost in each:
            queue.push(tenant, WEIGHTS[tenant], cost, None)
    largest = {tenant: max(each) / WEIGHTS[tenant] for tenant, each in left.items()}
    remaining = Counter({tenant: len(each) for tenant, each in left.items()})
    while min(remaining.values()) > 1:
        entry = take(queue)
        remaining[entry.tenant] -= 1
        served[entry.tenant] += entry.cost / WEIGHTS[entry.tenant]
        for one in WEIGHTS:
            for other in WEIGHTS:
                assert abs(served[one] - served[other]) <= largest[one] + largest[other] + 1e-6


@given(st.integers(1, 2000), st.lists(COSTS, min_size=1, max_size=3), COSTS)
@settings(max_examples=50)
def test_who_asks_seldom_is_next_in_line_however_much_another_has_queued(flood, costs, own):
    queue = FairQueue()
    for number in range(flood):
        queue.push("flood", 1.0, costs[number % len(costs)], "flood")
    take(queue) if flood > 1 else None
    queue.push("seldom", 1.0, own, "seldom")
    assert "seldom" in [take(queue).item for _ in range(min(2, len(queue)))]


@given(st.lists(st.one_of(st.tuples(TENANTS, COSTS), st.just("take"), st.integers(0, 50)), max_size=300))
def test_it_holds_just_what_waits_whatever_is_removed(steps):
    queue, waiting = FairQueue(), []
    for step in steps:
        if step == "take":
            if waiting:
                waiting.remove(take(queue))
            assert len(queue) == len(waiting)
        elif isinstance(step, int):
            if waiting:
                entry = waiting.pop(step % len(waiting))
                queue.remove(entry)
                queue.remove(entry)
        else:
            waiting.append(queue.push(step[0], WEIGHTS[step[0]], step[1], None))
        assert len(queue) == len(waiting)
        assert (queue.head() is None) == (not waiting)  # never idle while somebody waits
        assert {id(entry) for entry in queue.entries()} == {id(entry) for entry in waiting}


def test_what_did_not_have_to_wait_counts_too():
    queue = FairQueue()
    for _ in range(100):
        queue.pass_by("busy", 1.0, 10)
    queue.push("busy", 1.0, 10, "busy")
    queue.push("new", 1.0, 10, "new")
    assert take(queue).item == "new"


def test_a_full_queue_makes_room_at_the_cost_of_whoever_has_most_for_its_weight():
    queue = FairQueue()
    for number in range(6):
        queue.push("much", 1.0, 1, f"much{number}")
    for number in range(6):
        queue.push("heavy", 4.0, 1, f"heavy{number}")
    assert queue.crowding("seldom", 1.0).item == "much5"
    assert queue.crowding("heavy", 4.0).item == "much5"
    assert queue.crowding("much", 1.0) is None


def test_a_flood_does_not_make_it_slow():
    """O(log n): ten times as many entries cost about ten times as much in all, not a hundred times."""

    def seconds(number):
        queue = FairQueue()
        began = time.process_time()
        for index in range(number):
            queue.push(f"t{index % 997}", 1.0, 1 + index % 7, index)
        for _ in range(number):
            take(queue)
        return time.process_time() - began

    small = min(seconds(3_000) for _ in range(3))
    large = min(seconds(30_000) for _ in range(2))
    assert large < 40 * small


def test_tenants_that_are_gone_are_forgotten():
    queue = FairQueue()
    for number in range(20_000):
        queue.push(f"t{number}", 1.0, 1, None)
        take(queue)
        queue.push("steady", 1.0, 1, None)
        take(queue)
    assert len(queue._flows) < 3000
    assert len(queue._flows["steady"].entries) <= 1
    assert len(queue._heads) < 100
