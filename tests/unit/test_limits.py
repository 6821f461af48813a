"""Rules, and the buckets against a model that cannot be wrong: amounts that drip into a vessel, in exact fractions."""

import pickle
from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from domain import gcra
from domain.limits import UNLIMITED, Limits, RateLimited, Rule, rules_of
from domain.tenant import Caller
from serve_app.ingress.limiter import OfSettings
from storage.local_limits import LocalLimits

SOMEBODY = Caller("ten_1", "key_1", user="usr_1")
ALL = {"requests_per_minute": 10, "tokens_per_minute": 1000, "concurrent_turns": 2}

milliseconds = st.integers(0, 90_000)
costs = st.integers(1, 30)


class Vessel:
    """What GCRA is an economical form of: `limit` drops, one more every `60 / limit` seconds, never above `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit, self.level, self.at = limit, Fraction(limit), Fraction(0)

    def take(self, now: Fraction, cost: int, tie: bool | None) -> bool:
        """`tie`: what to say where it is so close that times, which are not exact, may say either."""
        self.level = min(Fraction(self.limit), self.level + (now - self.at) * self.limit / 60)
        self.at, needed = now, min(cost, self.limit)
        if tie is not None and abs(self.level - needed) < Fraction(1, 10_000):
            self.level = needed if tie else needed - Fraction(1, 10**9)
        if self.level < needed:
            return False
        self.level -= cost
        return True


class Clock:
    def __init__(self) -> None:
        self.milliseconds = 0

    def __call__(self) -> float:
        return self.milliseconds / 1000


def rule(bucket: str = "b", kind: str = "requests", limit: int = 5, cost: int = 1) -> Rule:
    return Rule(bucket, "tenant", kind, limit, cost)


@given(st.integers(1, 50), st.lists(st.tuples(milliseconds, costs), max_size=60))
def test_the_bucket_lets_in_what_the_vessel_lets_in(limit, steps):
    vessel, tat, now = Vessel(limit), 0.0, 1_000_000
    vessel.at = Fraction(1000)
    for pause, cost in steps:
        now += pause
        seconds = now / 1000
        tat = gcra.sane(tat, seconds)
        admitted = gcra.wait(tat, seconds, limit, cost) <= gcra.SLACK
        tie = admitted if abs(gcra.wait(tat, seconds, limit, cost)) < 2 * gcra.SLACK else None
        assert vessel.take(Fraction(now, 1000), cost, tie) is admitted
        if admitted:
            tat = gcra.taken(tat, seconds, limit, cost)


@given(st.integers(1, 40), st.lists(milliseconds, max_size=120))
async def test_no_window_holds_more_than_the_burst_and_what_dripped_meanwhile(limit, pauses):
    clock, let_in = Clock(), []
    limits = LocalLimits(clock)
    for pause in pauses:
        clock.milliseconds += pause
        if (await limits.take("r", [rule(limit=limit)])).refused is None:
            let_in.append(clock.milliseconds)
    for first in range(len(let_in)):
        for last in range(first, len(let_in)):
            dripped = Fraction(let_in[last] - let_in[first], 60_000) * limit
            assert last - first + 1 <= limit + dripped + Fraction(1, 1000)


@given(st.integers(1, 30), st.lists(st.tuples(st.sampled_from("abcdef"), milliseconds), max_size=80))
async def test_each_bucket_is_its_own(limit, steps):
    clock = Clock()
    together, alone = LocalLimits(clock), {name: LocalLimits(clock) for name in "abcdef"}
    for name, pause in steps:
        clock.milliseconds += pause
        wanted = [rule(name, limit=limit)]
        assert await together.take("r", wanted) == await alone[name].take("r", wanted)


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 800)), max_size=40))
async def test_tokens_are_in_the_long_run_what_was_used_and_not_what_was_guessed(turns):
    clock, used, began = Clock(), 0, 0
    limits, limit = LocalLimits(clock), 1000
    for guessed, took in turns:
        wanted = [rule(kind="tokens", limit=limit, cost=guessed)]
        taken = await limits.take("r", wanted)
        while taken.refused is not None:
            clock.milliseconds += int(taken.states[0].seconds * 1000) + 1
            taken = await limits.take("r", wanted)
        await limits.settle("r", wanted, took - guessed)
        used += took
    dripped = (clock.milliseconds - began) * limit / 60_000
    last = turns[-1][1] if turns else 0
    assert used - last <= limit + dripped + 400, "beyond the burst there is at most the last turn, and one wrong guess"


@given(st.integers(1, 10**9), st.integers(1, 10**6), st.floats(0, 4e9), st.floats(0, 4e9))
def test_a_clock_that_jumps_shuts_no_bucket_for_longer_than_it_can_owe(limit, cost, before, after):
    tat = gcra.taken(gcra.sane(0.0, before), before, limit, cost)
    for owed in (0.0, gcra.MOST_OWED):
        assert after <= gcra.sane(tat, after, owed) <= after + gcra.MINUTE + owed
        assert 0 <= gcra.remaining(gcra.sane(tat, after, owed), after, limit) <= limit


async def test_all_rules_are_taken_or_none():
    limits = LocalLimits(Clock())
    small, large = rule("small", limit=1), rule("large", limit=10)
    assert (await limits.take("1", [small, large])).refused is None
    refused = await limits.take("2", [large, small])
    assert refused.refused == 1
    assert [state.remaining for state in refused.states] == [9, 0]
    assert refused.states[1].seconds == pytest.approx(60)
    assert [state.remaining for state in (await limits.take("3", [large])).states] == [8]


async def test_turns_count_until_they_end_and_a_share_is_never_nothing():
    limits = LocalLimits(Clock())
    limits.replicas = 4
    turns = [rule(kind="turns", limit=2)]
    assert (await limits.take("1", turns)).refused is None
    assert (await limits.take("2", turns)).refused == 0
    await limits.settle("1", turns, 0)
    assert (await limits.take("2", turns)).refused is None
    assert limits._turns == {"b": {"2"}}


async def test_a_flood_of_buckets_is_bounded():
    limits = LocalLimits(Clock(), bound=10)
    for number in range(100):
        await limits.take("r", [rule(str(number))])
    assert len(limits._buckets) == 10


async def test_more_than_a_whole_bucket_is_let_in_by_a_full_one_and_owed():
    clock = Clock()
    limits = LocalLimits(clock)
    wanted = [rule(kind="tokens", limit=100, cost=250)]
    assert (await limits.take("1", wanted)).refused is None
    again = await limits.take("2", wanted)
    assert again.refused == 0 and again.states[0].seconds == pytest.approx(150)
    clock.milliseconds += 150_000
    assert (await limits.take("2", wanted)).refused is None


def test_rules_are_those_that_are_set_and_that_the_request_takes():
    assert rules_of(UNLIMITED, SOMEBODY, "turn", 5) == []
    limits = Limits(**ALL, per_user=ALL, per_key=ALL)
    assert [(one.subject, one.kind, one.cost) for one in rules_of(limits, SOMEBODY, "turn", 7)] == [
        (subject, kind, cost)
        for subject in ("tenant", "user", "key")
        for kind, cost in (("requests", 1), ("tokens", 7), ("turns", 1))
    ]
    assert {one.kind for one in rules_of(limits, SOMEBODY, "request", 0)} == {"requests"}
    assert {one.kind for one in rules_of(limits, SOMEBODY, "tokens", 3)} == {"requests", "tokens"}
    assert {one.subject for one in rules_of(limits, Caller("ten_1", "key_1"), "request", 0)} == {"tenant", "key"}


def test_no_two_callers_of_different_tenants_users_or_keys_share_a_bucket():
    limits = Limits(**ALL, per_user=ALL, per_key=ALL)
    callers = [Caller(tenant, one, user=one) for tenant in ("ten_1", "ten_2") for one in ("a", "b")]
    buckets = [[one.bucket for one in rules_of(limits, caller, "turn", 1)] for caller in callers]
    assert len({one for each in buckets for one in each}) == 2 * 3 + 4 * 2 * 3


async def test_limits_are_those_of_a_tenants_settings():
    asked = []

    @dataclass
    class Settings:
        limits: Limits

    async def read(tenant):
        asked.append(tenant)
        return Settings(Limits(**ALL))

    assert await OfSettings(read).limits("ten_1") == Limits(**ALL)
    assert asked == ["ten_1"]


@pytest.mark.parametrize("wrong", [{"requests_per_minute": 0}, {"turns": 3}, {"per_user": {"tokens_per_minute": -1}}])
def test_limits_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        Limits.model_validate(wrong)


def test_a_refusal_crosses_processes():
    refusal = pickle.loads(pickle.dumps(RateLimited("too fast", 7)))  # noqa: S301
    assert (str(refusal), refusal.retry_after, refusal.code, refusal.status) == ("too fast", 7, "rate_limited", 429)
