"""The gate before new turns: what it lets in, whom it refuses, and what it tells them."""

import heapq
import math
import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.ingress.admission import LONGEST, MODELS, Admission, Refused
from serve_app.ingress.concurrency_limit import BASE_SPAN, FLOOR, RELEASE, ConcurrencyLimit

TARGET = 0.5


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def overloaded(clock: Clock, turns: int = 40, wait: float = 3.0) -> Admission:
    """A gate that has seen a quick first text, and then `turns` of the tenant `flood` that waited `wait` s and more."""
    admission = Admission(TARGET, clock)
    quick = admission.enter("flood", "m")
    assert quick is not None
    clock.now += 0.1
    quick.first_text()
    quick.leave()
    waiting = [admission.enter("flood", "m") for _ in range(turns)]
    clock.now += wait
    for turn in waiting:
        assert turn is not None
        turn.first_text()
        clock.now += 0.1
    return admission


def test_without_waiting_nobody_is_refused() -> None:
    clock = Clock()
    admission = Admission(TARGET, clock)
    for _ in range(5000):
        turn = admission.enter("t", "m")
        assert turn is not None
        clock.now += 0.01
        turn.first_text()  # and it never leaves


def test_no_wait_set_means_no_gate() -> None:
    assert Admission(0).enter("t", "m") is None


def test_who_comes_when_too_many_wait_is_refused_with_a_time() -> None:
    admission = overloaded(Clock())
    with pytest.raises(Refused) as refused:
        admission.enter("flood", "m")
    assert refused.value.status == 429
    assert refused.value.code == "overloaded"
    assert 1 <= refused.value.retry_after <= LONGEST
    assert pickle.loads(pickle.dumps(refused.value)).retry_after == refused.value.retry_after  # noqa: S301


def test_another_model_is_not_refused() -> None:
    assert overloaded(Clock()).enter("flood", "another") is not None


def test_a_quiet_tenant_is_let_in_beside_a_flood_up_to_its_share() -> None:
    admission = overloaded(Clock())
    let_in = 0
    for _ in range(1000):
        try:
            admission.enter("quiet", "m")
        except Refused:
            break
        let_in += 1
    assert 1 <= let_in <= admission._gates["m"]._limit.value / 2
    with pytest.raises(Refused):
        admission.enter("flood", "m")


def test_many_quiet_tenants_together_do_not_break_the_bound() -> None:
    admission = overloaded(Clock())
    limit = admission._gates["m"]._limit.value
    for number in range(1000):
        try:
            admission.enter(f"t{number}", "m")
        except Refused:
            continue
    assert 40 < admission._gates["m"].running <= 40 + limit + 1


def test_the_refused_are_sent_away_one_behind_the_other() -> None:
    admission = overloaded(Clock())
    drain = admission._gates["m"]._limit.drain
    told = []
    for _ in range(int(drain * 20)):
        with pytest.raises(Refused) as refused:
            admission.enter("flood", "m")
        told.append(refused.value.retry_after)
    assert min(told) <= 2
    assert 20 <= max(told) <= 20 * 1.25 + 1
    for second in range(4, 20, 4):  # nobody meets a crowd: those of four seconds are not more than drain in them
        assert sum(second < after <= second + 4 for after in told) <= drain * 4 * 1.25 + 4


def test_after_the_load_has_gone_there_is_no_limit() -> None:
    clock = Clock()
    admission = overloaded(clock)
    gate = admission._gates["m"]
    for _ in range(40):
        gate.leave("flood")
    while gate._limit.value < math.inf:
        turn = admission.enter("t", "m")  # raises where it would not be let in
        assert turn is not None
        clock.now += 0.2
        turn.first_text()
        turn.leave()
        assert clock.now < 1000 + 3 * RELEASE


def test_a_limit_of_which_nothing_is_heard_opens_again() -> None:
    clock = Clock()
    admission = overloaded(clock)
    with pytest.raises(Refused):
        admission.enter("flood", "m")
    for _ in range(10):
        clock.now += RELEASE + 1
        try:
            admission.enter("flood", "m")
            return
        except Refused:
            continue
    pytest.fail("whole replies alone would be refused for ever")


def test_names_of_models_that_callers_make_up_are_forgotten() -> None:
    admission = Admission(TARGET)
    for number in range(MODELS * 3):
        turn = admission.enter("t", f"m{number}")
        assert turn is not None
        turn.leave()
    assert len(admission._gates) <= MODELS


def test_a_model_that_is_slow_by_itself_is_no_queue() -> None:
    limit, now = ConcurrencyLimit(TARGET), 0.0
    for _ in range(2000):
        now += 0.1
        limit.first_text(now - 30, now, 300)
    assert limit.value == math.inf


def test_one_long_prompt_among_short_ones_is_no_queue() -> None:
    limit, now = ConcurrencyLimit(TARGET), 0.0
    for number in range(2000):
        now += 0.05
        limit.first_text(now - (20 if number % 3 else 0.2), now, 100)
    assert limit.value == math.inf


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 100), st.integers(0, 10_000)), max_size=200),
)
def test_the_limit_never_falls_below_its_floor_nor_becomes_no_number(steps: list[tuple[float, float, int]]) -> None:
    limit, now = ConcurrencyLimit(TARGET), BASE_SPAN
    for pause, wait, running in steps:
        now += pause
        limit.admits(running, now)
        limit.first_text(now - wait, now, running)
        assert limit.value >= FLOOR
        assert not math.isnan(limit.value)


@settings(deadline=None, max_examples=30)
@given(
    servers=st.integers(1, 64),
    service=st.floats(0.05, 3),
    load=st.floats(1.5, 6),
    seed=st.integers(0, 2**32),
)
def test_under_any_overload_the_servers_stay_busy_and_the_wait_is_bounded(
    servers: int, service: float, load: float, seed: int
) -> None:
    """Turns that hold one of `servers` for about `service` seconds each, arriving at `load` times their capacity."""
    drawn, limit = random.Random(seed), ConcurrencyLimit(TARGET)
    capacity = servers / service
    seconds = 30 + 60 * service
    begun: list[float] = []  # of those that wait for a server
    ends: list[float] = []
    served, waits, now, arrives = 0, [], 0.0, 0.0

    def start(began: float) -> None:
        heapq.heappush(ends, now + service * drawn.uniform(0.8, 1.2))
        limit.first_text(began - 0.05, now, len(begun) + len(ends))
        waits.append((now, now - began))

    while now < seconds:
        if ends and ends[0] <= arrives:
            now = heapq.heappop(ends)
            served += now > seconds / 2
            if begun:
                start(begun.pop(0))
            continue
        now = arrives
        light = now < 2 * service + 1
        arrives += drawn.expovariate(capacity * (0.3 if light else load))
        if limit.admits(len(begun) + len(ends), now):
            if len(ends) < servers:
                start(now)
            else:
                begun.append(now)
    late = [wait for at, wait in waits if at > seconds / 2]
    assert served >= 0.9 * capacity * seconds / 2 - 2 * servers
    assert sorted(late)[len(late) // 2] <= 2 * TARGET + 3 * service
