"""Retrying, hedging and continuing: what a caller gets of answers that come late, twice, in parts or not at all."""

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.lost import continues
from deployments.providers import Piece, ProviderFailure
from domain.events import DELTA, MODEL, Event
from domain.message import Usage
from domain.ports import Progress
from tests.unit.policies_world import DOWN, END, Background, Gate, Wire, World, catalog_of

CUT = ProviderFailure("it broke the connection", retryable=True)
REFUSED = ProviderFailure("no such parameter", status=400, refused=True)


async def answer(world, **fields):
    asked = world.ask(**fields)
    await world.clock.until_done(asked.task)
    return asked


def whys(asked):
    return [record.why for record in asked.trace]


# Retrying.


async def test_a_passing_failure_before_the_first_token_is_repeated_with_growing_random_delays():
    world = World(Wire([DOWN], [DOWN], [DOWN], ["hi", END]), retries=3)
    asked = await answer(world)
    assert (asked.text, whys(asked)) == ("hi", ["first", "retry", "retry", "retry"])
    assert all(0 <= pause <= 0.5 * 2**retry for retry, pause in enumerate(world.clock.slept))
    assert len(set(world.clock.slept)) == 3


@pytest.mark.parametrize(
    "plan", [[REFUSED], ["hi", CUT], [Piece("", None, None, ({"index": 0, "id": "c"},)), CUT], [ProviderFailure("x")]]
)
async def test_refusals_and_failures_past_the_first_token_are_not_repeated(plan):
    world = World(Wire(plan), retries=3)
    asked = await answer(world)
    assert isinstance(asked.failure, ProviderFailure)
    assert len(world.wire.calls) == 1


async def test_nothing_is_repeated_against_a_breaker_that_has_opened():
    world = World(Wire([DOWN]), retries=5, breaker={"failures": 2})
    asked = await answer(world)
    assert (len(world.wire.calls), len(asked.trace), asked.failure) == (2, 2, DOWN)


async def test_retry_after_is_a_reason_to_ask_another_model_if_there_is_one():
    limited = ProviderFailure("429", retryable=True, retry_after=7, status=429)
    world = World(Wire([limited], ["hi", END]), retries=2)
    asked = await answer(world, alternatives=True)
    assert (asked.failure, world.clock.slept) == (limited, [])
    assert (await answer(world)).text == "hi"


# Hedging.


async def practised(wire, **fields):
    """A world whose model's p95 is known: 0 to 1.9 s, so 1.8 s."""
    world = World(Wire(["x", END]), model={"hedge": True, **fields})
    for tenth in range(20):

        async def wait(seconds=tenth / 10):
            await world.clock.sleep(seconds)

        world.wire.plans = [[wait, "x", END]]
        assert (await answer(world)).text == "x"
    world.clock.slept.clear()
    world.wire.calls.clear()
    world.wire.plans = wire
    return world


async def test_a_second_call_is_made_after_the_p95_and_answers_where_it_is_first():
    late = Gate()
    world = await practised([[late, "first", END], ["second", END]])
    asked = await answer(world)
    assert (asked.text, whys(asked), world.clock.slept) == ("second", ["first", "hedge"], [pytest.approx(1.8)])
    lost, won = (world.counting.attempt(record) for record in asked.trace)
    assert (lost.reply, won.reply) == (False, True)
    assert lost.error == "another call answered first"
    assert (lost.estimated, lost.usage.completion_tokens, won.estimated) == (True, 0, False)
    assert lost.usage.prompt_tokens > 0
    assert world.wire.active == 0


async def test_the_first_call_may_still_win():
    late, never = Gate(), Gate()
    world = await practised([[late, "first", END], [never, "second", END]])
    asked = world.ask()
    await world.clock.advance(2)
    assert len(world.wire.calls) == 2
    late.open.set()
    await world.clock.until_done(asked.task)
    assert (asked.text, world.wire.active) == ("first", 0)
    assert [record.lost for record in asked.trace] == [False, True]


async def test_nobody_is_asked_twice_who_answers_in_time_or_is_not_to_be_hedged():
    world = await practised([["hi", END]])
    assert len((await answer(world)).trace) == 1
    world.catalog.providers[0].models[0].hedge = False
    late = Gate()
    world.wire.plans = [[late, "hi", END]]
    asked = world.ask()
    await world.clock.advance(30)
    assert len(world.wire.calls) == 2
    late.open.set()
    await world.clock.until_done(asked.task)


async def test_if_one_of_the_two_fails_the_other_answers_and_if_both_do_it_fails():
    late = Gate()
    world = await practised([[late, "first", END], [DOWN]])
    asked = world.ask()
    await world.clock.advance(2)
    late.open.set()
    await world.clock.until_done(asked.task)
    assert asked.text == "first"
    broken = Gate()
    world = await practised([[broken, REFUSED], [REFUSED]])
    asked = world.ask()
    await world.clock.advance(2)
    broken.open.set()
    await world.clock.until_done(asked.task)
    assert asked.failure is REFUSED
    assert len(asked.trace) == 2


async def test_cancelling_closes_both():
    world = await practised([[Gate(), END], [Gate(), END]])
    asked = world.ask()
    await world.clock.advance(2)
    assert world.wire.active == 2
    asked.task.cancel()
    await world.clock.settle()
    assert world.wire.active == 0
    assert len(asked.trace) == 2


# Continuing.


class Echoes(Wire):
    """Says the words of a text one by one, after the prefix, and breaks after each of `breaks` words."""

    def __init__(self, words, breaks):
        super().__init__([])
        self._words, self._breaks = words, list(breaks)

    async def stream(self, route, request):
        self.calls.append((route, request))
        said = 0
        while "".join(self._words[:said]) != request.prefix:
            said += 1
        number = self._breaks.pop(0) if self._breaks else None
        for index, word in enumerate(self._words[said:]):
            if index == number:
                raise CUT
            yield Piece(word)
        yield END


@given(st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=12), st.lists(st.integers(1, 4), max_size=3))
async def test_an_answer_that_is_continued_has_no_gap_and_no_repeat(words, breaks):
    world = World(Echoes(words, breaks), model={"continues": True}, retries=0, breaker={"failures": 99})
    asked = await answer(world)
    assert asked.text == "".join(words)
    assert whys(asked) == ["first"] + ["continued"] * (len(asked.trace) - 1)
    for (_, request), record in zip(world.wire.calls, asked.trace, strict=True):
        assert request is record.request


async def test_it_is_not_continued_for_ever_nor_where_the_model_does_not_allow_it():
    world = World(Echoes(list("abcdefghij"), [1] * 9), model={"continues": True}, breaker={"failures": 99})
    asked = await answer(world)
    assert (asked.text, asked.failure) == ("abcd", CUT)
    world = World(Echoes(list("abc"), [1]))
    asked = await answer(world)
    assert (asked.text, asked.failure) == ("a", CUT)


async def test_a_continued_call_that_is_refused_at_first_is_retried():
    world = World(Wire(["one", CUT], [DOWN], [" two", END]), model={"continues": True})
    asked = await answer(world)
    assert (asked.text, whys(asked)) == ("one two", ["first", "continued", "retry"])
    assert [request.prefix for _, request in world.wire.calls] == ["", "one", "one"]


async def test_what_was_said_before_counts_against_the_limit_on_tokens():
    world = World(Wire(["one two", END]))
    await answer(world)
    call = {"parameters": {"max_tokens": 10}}
    await answer(world, prefix="one two three", **call)
    await answer(world, prefix="many " * 50, **call)
    limits = [request.parameters["max_tokens"] for _, request in world.wire.calls[1:]]
    assert 5 <= limits[0] <= 8
    assert limits[1] == 1


async def test_a_tool_call_is_never_continued():
    world = World(Wire(["x", Piece("", None, None, ({"index": 0},)), CUT]), model={"continues": True})
    assert (await answer(world)).failure is CUT


def referred(text, cursor):
    return Piece(text, ref="resp_1", cursor=cursor)


async def test_a_lost_stream_is_taken_up_again_where_it_broke():
    wire = Background(
        [Piece(ref="resp_1"), referred("one", 4), CUT], resumes=[[referred(" two", 7), CUT], [DOWN], [" three", END]]
    )
    world = World(wire, model={"api": "responses", "reattach": True})
    asked = await answer(world)
    assert asked.text == "one two three"
    assert wire.resumed == [("resp_1", 4), ("resp_1", 7), ("resp_1", 7)]
    assert whys(asked) == ["first", "reattached", "reattached", "retry"]
    attempts = [world.counting.attempt(record) for record in asked.trace]
    assert [attempt.usage is not None for attempt in attempts] == [False, False, False, True]
    assert len(wire.calls) == 1
    assert wire.abandoned == []


async def test_an_answer_lost_before_its_first_token_is_taken_up_too_and_not_asked_for_twice():
    wire = Background([Piece(ref="resp_1"), CUT], resumes=[["hi", END]])
    world = World(wire, model={"api": "responses", "reattach": True})
    asked = await answer(world)
    assert (asked.text, wire.resumed, len(wire.calls)) == ("hi", [("resp_1", None)], 1)


async def test_where_it_cannot_be_taken_up_again_it_fails_with_its_text_and_is_charged_once():
    wire = Background([referred("one", 4), CUT], resumes=[[REFUSED]])
    world = World(wire, model={"api": "responses", "reattach": True})
    asked = await answer(world)
    assert (asked.text, asked.failure, whys(asked)) == ("one", REFUSED, ["first", "reattached"])
    attempts = [world.counting.attempt(record) for record in asked.trace]
    assert [attempt.usage is not None for attempt in attempts] == [False, True]
    assert attempts[1].usage.completion_tokens >= 1
    assert wire.abandoned == ["resp_1"]


async def test_an_answer_in_the_background_is_stopped_when_nobody_listens_any_more():
    wire = Background([referred("one", 4), Gate()], resumes=[])
    world = World(wire, model={"api": "responses", "reattach": True})
    asked = world.ask()
    await world.clock.settle()
    asked.task.cancel()
    await world.clock.settle()
    assert wire.abandoned == ["resp_1"]


JSON = {"response_format": {"type": "json_object"}}


async def test_json_is_not_continued_for_a_second_answer_begins_at_its_first_bracket():
    world = World(Wire(['{"a"', CUT]), model={"continues": True})
    asked = await answer(world, parameters=JSON)
    assert (asked.failure, len(world.wire.calls)) == (CUT, 1)
    world = World(Wire(["one", CUT], [" two", END]), model={"continues": True})
    assert (await answer(world, parameters={"response_format": {"type": "text"}})).text == "one two"


@pytest.mark.parametrize(("parameters", "may"), [({}, True), (JSON, False), ({"response_format": None}, True)])
def test_nor_is_json_after_the_death_of_its_process(parameters, may):
    events = [Event("turn", 1, 1, MODEL, {"model": "m"}), Event("turn", 1, 2, DELTA, {"text": "{"})]
    asked = SimpleNamespace(models=(), parameters=parameters)
    live = SimpleNamespace(cancelled=False, asked=asked, attempt=1, continued=0)
    run = SimpleNamespace(live=live, parts=SimpleNamespace(catalog=catalog_of(model={"continues": True})))
    assert continues(run, Progress(events, None, False)) is may


GIVEN_UP = ProviderFailure("the response failed", retryable=True, status=500, ended=True)


async def test_an_answer_that_was_given_up_before_its_first_token_is_asked_for_again():
    wire = Background(
        [Piece(ref="resp_1", cursor=0), GIVEN_UP], [Piece("hi", ref="resp_2", cursor=1), CUT], resumes=[[" there", END]]
    )
    world = World(wire, model={"api": "responses", "reattach": True})
    asked = await answer(world)
    assert (asked.text, whys(asked)) == ("hi there", ["first", "retry", "reattached"])
    assert (wire.resumed, wire.abandoned) == ([("resp_2", 1)], [])


async def test_nobody_re_attaches_to_an_answer_that_was_given_up():
    wire = Background([referred("one", 4), GIVEN_UP], resumes=[])
    world = World(wire, model={"api": "responses", "reattach": True})
    asked = await answer(world)
    assert (asked.text, asked.failure, whys(asked)) == ("one", GIVEN_UP, ["first"])
    assert wire.abandoned == []
    wire = Background([Piece(ref="resp_1", cursor=0), CUT], resumes=[[GIVEN_UP]])
    world = World(wire, model={"api": "responses", "reattach": True})
    asked = await answer(world)
    assert (asked.failure, whys(asked), len(wire.calls)) == (GIVEN_UP, ["first", "reattached"], 1)


async def test_nobody_re_attaches_where_it_is_not_known_how_far_the_answer_got():
    wire = Background([referred("one", None), CUT], resumes=[["one two", END]])
    world = World(wire, model={"api": "responses", "reattach": True})
    asked = await answer(world)
    assert (asked.text, asked.failure, wire.resumed) == ("one", CUT, [])


async def test_stopping_an_answer_over_there_has_a_time_limit():
    ended = asyncio.Event()

    class Deaf(Background):
        async def abandon(self, route, ref):
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    wire = Deaf([referred("one", 4), Gate()], resumes=[])
    limits = {"first_token": 0.05}
    world = World(wire, model={"api": "responses", "reattach": True}, timeouts=limits)
    asked = world.ask()
    await world.clock.settle()
    asked.task.cancel()
    async with asyncio.timeout(5):
        await ended.wait()


# How long it may be silent.


async def test_who_thinks_before_the_first_token_may_do_so_for_as_long_as_the_first_token_may_take():
    async def thought():
        await asyncio.sleep(0.1)  # these limits' clock is the event loop's

    limits = {"first_token": 5, "idle": 0.02}
    world = World(Wire([Piece(), thought, "hi", END], [Piece(), "hi", thought, END]), timeouts=limits, retries=0)
    thinking, silent = world.ask(), world.ask()
    async with asyncio.timeout(5):
        await asyncio.wait([thinking.task, silent.task])
    assert (thinking.text, thinking.failure) == ("hi", None)
    assert "fell silent for 0.02 s" in str(silent.failure)


# What it costs.


async def test_what_was_refused_costs_nothing_and_what_was_broken_off_is_estimated():
    world = World(Wire(["one two", END]), retries=0, breaker={"failures": 99})
    for _ in range(3):
        reported = await answer(world)
    plans = {
        "refused": [DOWN],
        "error event": [ProviderFailure("failed", True, status=500)],
        "cut": ["one two", CUT],
    }
    costs = {}
    for name, plan in plans.items():
        world.wire.plans = [plan]
        asked = await answer(world)
        costs[name] = world.counting.attempt(asked.trace[0])
    assert costs["refused"].usage is costs["error event"].usage is None
    assert costs["cut"].estimated
    assert costs["cut"].usage == Usage(prompt_tokens=6, completion_tokens=2, total_tokens=8)
    known = world.counting.attempt(reported.trace[0])
    assert (known.usage, known.estimated, known.reply) == (costs["cut"].usage, False, True)
