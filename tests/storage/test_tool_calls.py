"""The journal of calls as a state machine on real SQL: owners come and go; what must not be made twice is not."""

import asyncio
import uuid
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from domain.errors import Fenced, NotFound
from domain.tool_calls import MOVES, CallMove, CallState, IllegalCallMove, ToolCall, advance, taken_up
from storage.conversations import PostgresConversations
from tests.conftest import make_database
from tests.servers.given import open_pool
from tests.storage.conftest import make_conversation, make_send

CALLS = 3  # of the round; the first may be repeated


def planned(place: int, round: int = 0) -> ToolCall:
    return ToolCall(round, place, f"call_{place}", "s__t", "mcp_1", "s", "t", "{}", repeatable=place == 0)


@pytest.mark.parametrize("state", list(CallState))
@pytest.mark.parametrize("move", list(CallMove))
def test_a_call_moves_as_the_table_says(state, move):
    if (state, move) in MOVES:
        assert advance(state, move) is MOVES[state, move]
    else:
        with pytest.raises(IllegalCallMove):
            advance(state, move)


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("state", list(CallState))
def test_what_has_ended_is_never_taken_up_and_the_rest_always(state, repeatable):
    move = taken_up(state, repeatable)
    assert (move is None) == state.ended
    if move is not None:
        after = advance(state, move)
        assert after is CallState.STARTED or (after is CallState.UNKNOWN and not repeatable)


class Calls(RuleBasedStateMachine):
    """`made`: how often each call was made; `model`: the state that each should be in."""

    url = tenant = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.pool = self.run(open_pool(self.url, 2))
        self.store = PostgresConversations(self.pool)
        self.key = make_conversation(self.url, self.tenant)
        self.owner = self.run(self.store.activate(self.key, str(uuid.uuid4()))).ownership
        self.former: list = []
        self.turn = self.run(self.store.accept(self.key, self.owner, make_send(self.key))).turn.id
        self.model: dict[int, CallState] = {}
        self.hands: dict[int, ToolCall] = {}  # calls that the present owner has under way
        self.made = dict.fromkeys(range(CALLS), 0)
        self.results: dict[int, str] = {}

    def run(self, work):
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(self.pool.close())
        self.loop.close()

    @initialize()
    def begin(self) -> None:
        self.plan()

    @rule()
    def plan(self) -> None:
        """Also again, as after a lost answer: what stands stays."""
        self.run(self.store.plan_calls(self.key, self.owner, self.turn, [planned(place) for place in range(CALLS)]))
        for place in range(CALLS):
            self.model.setdefault(place, CallState.PLANNED)

    @rule(again=st.booleans())
    def start(self, again: bool) -> None:
        """An owner takes the round up, asks twice where the first answer was lost, and makes what is started."""
        by = str(uuid.uuid4())
        found = self.run(self.store.start_calls(self.key, self.owner, self.turn, 0, by))
        if again:
            found = self.run(self.store.start_calls(self.key, self.owner, self.turn, 0, by))
        for place, state in self.model.items():
            if (move := taken_up(state, place == 0)) is not None:
                self.model[place] = advance(state, move)
        for call in found:
            if call.state is CallState.STARTED:
                self.made[call.place] += 1
                self.hands[call.place] = call
        assert [call.state for call in found] == [self.model[place] for place in range(CALLS)]

    @rule(place=st.integers(0, CALLS - 1), state=st.sampled_from([CallState.DONE, CallState.FAILED]))
    def end(self, place: int, state: CallState) -> None:
        call = self.hands.pop(place, None)
        if call is None:
            return
        result = f"result {self.made[place]}"
        self.run(self.store.end_call(self.tenant, self.turn, replace(call, state=state, result=result)))
        if self.model[place] is CallState.STARTED:
            self.model[place], self.results[place] = state, result

    @rule()
    def crash(self) -> None:
        """The owner is gone with all that it has in its hands; another one takes over."""
        self.former.append(self.owner)
        self.hands = {}
        self.owner = self.run(self.store.activate(self.key, str(uuid.uuid4()))).ownership

    @rule()
    def a_former_owner_starts_nothing(self) -> None:
        if self.former:
            with pytest.raises(Fenced):
                self.run(self.store.start_calls(self.key, self.former[-1], self.turn, 0, str(uuid.uuid4())))
            with pytest.raises(Fenced):
                self.run(self.store.plan_calls(self.key, self.former[-1], self.turn, [planned(0, round=9)]))

    @invariant()
    def nothing_is_made_twice_that_must_not_be(self) -> None:
        assert all(self.made[place] <= 1 for place in range(1, CALLS))

    @invariant()
    def what_is_stored_is_what_should_be(self) -> None:
        found = {call.place: call for call in self.run(self.store.tool_calls(self.tenant, self.turn))}
        assert {place: call.state for place, call in found.items()} == self.model
        for place, result in self.results.items():
            assert found[place].result == result


def test_no_order_of_events_makes_a_call_twice_that_must_not_be(postgres_folder, tenant):
    Calls.url, Calls.tenant = make_database(postgres_folder), tenant
    import psycopg

    with psycopg.connect(Calls.url) as connection:
        connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, 't') ON CONFLICT DO NOTHING", [tenant])
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        Calls, settings=settings(max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=checks)
    )


async def test_calls_of_a_turn_that_has_ended_are_not_planned(store, key):
    owner = (await store.activate(key, str(uuid.uuid4()))).ownership
    with pytest.raises(NotFound):
        await store.plan_calls(key, owner, "turn_" + "0" * 32, [planned(0)])
