"""The breaker: its state machine against a model of it, and what it lets through."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from deployments.policies import CircuitOpen
from deployments.policies.breaker import Circuits, is_ill
from deployments.providers import ProviderFailure
from domain.circuit import MOVES, Circuit, Sign, State
from domain.model import Breaker
from tests.unit.policies_world import DOWN, END, Clock, Gate, Wire, World, route_of

SETTINGS = Breaker(failures=3, window=30, open=10)


def is_closed(machine):
    return machine.circuit.state(machine.now) is State.CLOSED


def is_opened(machine):
    return machine.circuit.state(machine.now) is State.OPEN


def is_half_open(machine):
    return machine.circuit.state(machine.now) is State.HALF_OPEN


class CircuitMachine(RuleBasedStateMachine):
    """Calls that begin, succeed, fail and probe, in any order and at any time."""

    def __init__(self):
        super().__init__()
        self.circuit, self.now = Circuit(SETTINGS), 0.0
        self.calls, self.opened_at = [], None

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds):
        self.now += seconds

    @precondition(is_closed)
    @rule(fails=st.booleans())
    def a_call_ends(self, fails):
        if fails:
            self.calls.append((self.now, True))
            if self.circuit.failed(self.now):
                self.opened_at = self.now
        else:
            self.circuit.succeeded(self.now)
            self.calls.append((self.now, False))

    @precondition(is_opened)
    @rule(fails=st.booleans())
    def a_call_ends_that_began_before(self, fails):
        assert not self.circuit.failed(self.now) if fails else self.circuit.succeeded(self.now) is None
        assert self.circuit.state(self.now) is State.OPEN

    @precondition(is_half_open)
    @rule(fails=st.booleans())
    def a_probe_ends(self, fails):
        if fails:
            self.circuit.open(self.now, self.now + SETTINGS.open)
            self.opened_at = self.now
        else:
            self.circuit.close(self.now)
            self.opened_at = None
            self.calls = []

    @invariant()
    def it_is_open_just_as_long_as_it_should(self):
        state = self.circuit.state(self.now)
        if self.opened_at is None:
            assert state is State.CLOSED
        elif self.now < self.opened_at + SETTINGS.open:
            assert state is State.OPEN
        else:
            assert state is State.HALF_OPEN

    @invariant()
    def it_trips_for_failures_in_a_row_or_half_of_all_and_for_nothing_else(self):
        recent = [failed for at, failed in self.calls if at >= self.now - SETTINGS.window]
        row = [failed for _, failed in self.calls[-SETTINGS.failures :]]
        rows_began = self.calls[-SETTINGS.failures][0] if len(self.calls) >= SETTINGS.failures else None
        last = self.calls[-1][0] if self.calls else None
        ought = bool(self.calls) and self.calls[-1][1]
        in_a_row = len(row) == SETTINGS.failures and all(row) and last - rows_began <= SETTINGS.window
        if self.opened_at is None:
            assert not (ought and in_a_row)
        elif last == self.opened_at and self.now == last:
            assert in_a_row or 2 * sum(recent) >= len(recent)


TestCircuit = CircuitMachine.TestCase


@given(st.lists(st.sampled_from(list(Sign))))
def test_every_state_is_left_only_by_the_table(signs):
    state = State.CLOSED
    for sign in signs:
        following = MOVES.get((state, sign))
        if following is not None:
            assert following is not State.HALF_OPEN or sign is Sign.RESTED
            assert following is not State.CLOSED or sign is Sign.ANSWERED
            state = following


def test_half_of_the_calls_trips_it_but_fewer_do_not():
    circuit = Circuit(SETTINGS)
    outcomes = [False, True, False, True, True, True]
    for at, answered in enumerate(outcomes):
        circuit.succeeded(at) if answered else circuit.failed(at)
    assert circuit.state(6) is State.CLOSED
    assert [circuit.failed(6), circuit.failed(7)] == [False, True]


@pytest.mark.parametrize(
    ("failure", "ill"),
    [
        (DOWN, True),
        (ProviderFailure("broke the connection", retryable=True), True),
        (ProviderFailure("fell silent", timed_out=True), True),
        (ProviderFailure("too many requests", retryable=True, status=429), False),
        (ProviderFailure("bad request", status=400, refused=True), False),
        (ProviderFailure("no key"), False),
    ],
)
def test_only_failures_of_the_provider_itself_speak_against_it(failure, ill):
    assert is_ill(failure) is ill


class Shared:
    """`SharedBreakers` in memory; what is told is read at once."""

    def __init__(self, clock):
        self.open, self.read_at, self.clock = {}, float("-inf"), clock
        self.leases, self.probes = set(), 0

    def opened(self, name, seconds):
        self.open[name], self.read_at = self.clock.now + seconds, self.clock.now + 0.001

    def closed(self, name):
        self.open.pop(name, None)
        self.read_at = self.clock.now + 0.001

    async def probe(self, name, seconds):
        self.probes += 1
        await asyncio.sleep(0)
        taken = name in self.leases
        self.leases.add(name)
        return not taken

    def probed(self, name):
        self.leases.discard(name)


def two_replicas():
    clock = Clock()
    shared = Shared(clock)
    return clock, shared, Circuits(shared, clock.monotonic), Circuits(shared, clock.monotonic)


async def test_what_opens_in_one_replica_is_open_in_the_other_and_one_probe_closes_both():
    clock, shared, first, second = two_replicas()
    route = route_of(breaker={"failures": 2, "open": 10})
    for _ in range(2):
        first.failed(route, probe=False)
    assert first.unhealthy() == second.unhealthy() == {"p/m"}
    with pytest.raises(CircuitOpen):
        await second.enter(route)
    assert shared.probes == 0
    clock.now += 10.5
    assert first.unhealthy() == second.unhealthy() == frozenset()
    allowed = await asyncio.gather(
        *(circuits.enter(route) for circuits in (first, second) for _ in range(5)), return_exceptions=True
    )
    assert [answer for answer in allowed if not isinstance(answer, CircuitOpen)] == [True]
    assert shared.probes == 2
    first.answered(route, probe=True)
    first.left(route)
    clock.now += 1
    assert (await first.enter(route), await second.enter(route)) == (False, False)


async def test_a_failed_probe_opens_it_again_everywhere():
    clock, _, first, second = two_replicas()
    route = route_of(breaker={"failures": 1, "open": 10})
    first.failed(route, probe=False)
    clock.now += 11
    assert await second.enter(route)
    second.failed(route, probe=True)
    second.left(route)
    assert first.unhealthy() == {"p/m"}
    clock.now += 9
    assert first.state(route) is second.state(route) is State.OPEN
    clock.now += 2
    assert await first.enter(route)


async def test_a_dead_model_is_called_as_often_as_the_breaker_says_and_then_once_a_rest():
    world = World(Wire([DOWN]), retries=0, breaker={"failures": 3, "open": 10})
    for _ in range(8):
        asked = world.ask()
        await world.clock.until_done(asked.task)
        assert isinstance(asked.failure, ProviderFailure)
    assert len(world.wire.calls) == 3
    assert "breaker is open" in asked.trace[0].error
    assert (asked.trace[0].sent, asked.trace[0].status) == (False, None)
    await world.clock.advance(10)
    for _ in range(4):
        await world.clock.until_done(world.ask().task)
    assert len(world.wire.calls) == 4


async def test_a_probe_that_begins_to_answer_lets_the_others_in_at_once():
    silent, gate = Gate(), Gate()
    world = World(Wire([DOWN], [silent, "hi", gate, END]), retries=0, breaker={"failures": 1})
    await world.clock.until_done(world.ask().task)
    await world.clock.advance(10)
    probe, refused = world.ask(), world.ask()
    await world.clock.settle()
    assert isinstance(refused.failure, CircuitOpen)
    silent.open.set()
    await world.clock.settle()
    assert probe.text == "hi"
    world.wire.plans = [["there", END]]
    other = world.ask()
    await world.clock.until_done(other.task)
    assert other.text == "there"
    gate.open.set()
    await world.clock.until_done(probe.task)


async def test_a_probe_that_is_cancelled_leaves_its_place_to_the_next():
    gate = Gate()
    world = World(Wire([DOWN], [gate, "hi", END], ["hi", END]), retries=0, breaker={"failures": 1})
    await world.clock.until_done(world.ask().task)
    await world.clock.advance(10)
    probe = world.ask()
    await world.clock.settle()
    probe.task.cancel()
    await world.clock.settle()
    following = world.ask()
    await world.clock.until_done(following.task)
    assert following.text == "hi"


async def test_a_refusal_of_the_request_closes_a_half_open_breaker():
    refusal = ProviderFailure("no such parameter", status=400, refused=True)
    world = World(Wire([DOWN], [refusal]), retries=0, breaker={"failures": 1})
    await world.clock.until_done(world.ask().task)
    await world.clock.advance(10)
    for _ in range(3):
        asked = world.ask()
        await world.clock.until_done(asked.task)
        assert asked.failure is refusal
    assert len(world.wire.calls) == 4


async def test_who_waits_for_a_place_at_a_model_does_not_wait_for_it_once_the_breaker_opens():
    gate = Gate()
    world = World(Wire([gate, DOWN]), retries=0, max_connections=1, breaker={"failures": 1})
    first, second = world.ask(), world.ask()
    await world.clock.settle()
    assert len(world.wire.calls) == 1
    gate.open.set()
    await world.clock.until_done(first.task, second.task)
    assert isinstance(second.failure, CircuitOpen)
    assert len(world.wire.calls) == 1


@pytest.mark.parametrize("words", ["the key is not readable", "sent a malformed event", "answered with a web page"])
async def test_what_nobody_answered_shows_no_health_and_as_a_probe_opens_it_again(words):
    strange = ProviderFailure(words)
    world = World(Wire([DOWN], [strange], [DOWN], [DOWN], [strange]), retries=0, breaker={"failures": 3, "open": 10})
    for _ in range(4):
        await world.clock.until_done(world.ask().task)
    assert world.policies.circuits.unhealthy() == {"p/m"}
    await world.clock.advance(10)
    asked = world.ask()
    await world.clock.until_done(asked.task)
    assert asked.failure is strange
    assert world.policies.circuits.unhealthy() == {"p/m"}


async def test_a_request_that_was_never_sent_decides_nothing_about_a_half_open_breaker():
    world = World(Wire([DOWN], [ProviderFailure("cannot be said", refused=True)]), retries=0, breaker={"failures": 1})
    await world.clock.until_done(world.ask().task)
    await world.clock.advance(10)
    await world.clock.until_done(world.ask().task)
    assert world.policies.circuits.state(route_of(breaker={"failures": 1})) is State.HALF_OPEN
    world.wire.plans = [["hi", END]]
    asked = world.ask()
    await world.clock.until_done(asked.task)
    assert asked.text == "hi"


async def test_a_probe_that_is_cancelled_while_it_asks_for_its_lease_gives_it_back():
    clock, shared, first, second = two_replicas()
    route = route_of(breaker={"failures": 1, "open": 10})
    first.failed(route, probe=False)
    clock.now += 11
    entering = asyncio.create_task(first.enter(route))
    await asyncio.sleep(0)
    assert shared.probes == 1
    shared.leases.add("p/m")  # it is given, but the answer is still on its way
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert await second.enter(route)
