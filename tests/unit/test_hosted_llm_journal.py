"""What a generation tells the journal: deltas in order, replaced models, its end, and nothing once it is superseded."""

import asyncio

import pytest

from benchmarks.mock_provider import MockProvider, serve
from benchmarks.mock_spec import reply_tokens
from deployments.hosted_llm import HostedLLM
from domain.errors import JournalUnavailable
from domain.generation import GenerationRequest
from domain.model import parse_catalog


class MemoryJournal:
    """`Journal` in memory, as far as a writer needs it. `lose_at`: events after which it is lost, or raises `error`."""

    def __init__(self):
        self.events, self.sealed, self.beats = [], [], []
        self.claims, self.elsewhere, self.lose_at = set(), False, None
        self.gate, self.claiming = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.claiming.set()
        self.error = None

    @property
    def texts(self):
        return [data["text"] for kind, data in self.events if kind == "message.delta"]

    async def append(self, tenant, turn_id, attempt, events, after=0):
        await self.gate.wait()
        if self.lose_at is not None and len(self.events) >= self.lose_at:
            if self.error is not None:
                raise self.error
            return None
        assert len(self.events) >= after
        self.events += events
        return len(self.events)

    async def claim(self, request, writer):
        await self.claiming.wait()
        self.claims.add((request.name, writer))
        return not self.elsewhere

    async def write(self, request, writer, deltas, after):
        assert (request.name, writer) in self.claims
        events = [("message.delta", {"text": text}) for text in deltas]
        return await self.append(request.tenant, request.turn_id, request.attempt, events, after)

    async def beat(self, names, writer):
        self.beats += [request.name for request in names]

    async def seal(self, request, writer, outcome):
        self.sealed.append((request.name, outcome))


@pytest.fixture
async def mock():
    provider = MockProvider()
    runner, provider.url = await serve(provider)
    yield provider
    await runner.cleanup()


@pytest.fixture
async def journal():
    journal = MemoryJournal()
    journal.events.append(("turn.accepted", {}))
    return journal


@pytest.fixture(params=[False, True], ids=["", "eager"])
async def llm(mock, journal, request):
    provider = {"name": "mock", "base_url": mock.url, "retries": 0, "models": [{"id": "mock*"}]}
    llm = HostedLLM(journal, parse_catalog({"providers": [provider]}), beat=0.01, eager=request.param)
    yield llm
    await llm.close()


def ask(model="mock", **fields):
    return GenerationRequest("ten_1", "turn_1", 1, model, [{"role": "user", "content": "hello"}], n=1, **fields)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


def waiting(llm):
    """How many tokens wait for the write in flight."""
    [(generation, _)] = llm._running.values()
    return "".join(generation.recording._pending).count(" t")


def text(n):
    return "".join(reply_tokens("hello", n))


async def test_deltas_are_recorded_in_order_with_their_numbers_and_then_sealed(llm, journal):
    outcome = await llm.generate(ask("mock,n=300"))
    assert "".join(journal.texts) == outcome.text == text(300)
    assert outcome.deltas == tuple((n, len(t)) for n, t in enumerate(journal.texts, 2))
    assert journal.sealed == [("turn_1/1", outcome)]


async def test_the_first_token_is_told_at_once_and_what_waits_is_told_together(llm, journal):
    call = asyncio.create_task(llm.generate(ask("mock,n=12,itl=20")))
    await until(lambda: journal.texts)
    assert journal.texts[0] == reply_tokens("hello", 1)[0]
    journal.gate.clear()
    await until(lambda: waiting(llm) >= 5)
    before = len(journal.texts)
    journal.gate.set()
    await until(lambda: len(journal.texts) >= before + 2)
    assert journal.texts[before + 1].count(" t") >= 5
    outcome = await call
    assert "".join(journal.texts) == outcome.text == text(12)


async def test_without_a_live_reader_text_is_told_in_large_batches(llm, journal):
    outcome = await llm.generate(ask("mock,n=20,itl=5", live=False))
    assert "".join(journal.texts) == outcome.text == text(20)
    assert len(journal.texts) <= 3


async def test_numbers_that_others_gave_out_meanwhile_are_no_gap(llm, journal):
    call = asyncio.create_task(llm.generate(ask("mock,n=10,itl=5")))
    await until(lambda: len(journal.texts) >= 2)
    journal.events.append(("turn.intent", {}))
    outcome = await call
    deltas = [n for n, (kind, _) in enumerate(journal.events, 1) if kind == "message.delta"]
    assert [n for n, _ in outcome.deltas] == deltas
    assert len(journal.events) == len(deltas) + 2


async def test_another_process_holds_it(llm, journal, mock):
    journal.elsewhere = True
    assert (await llm.generate(ask())).ending == "elsewhere"
    assert journal.sealed == [] and len(journal.events) == 1
    journal.elsewhere = False
    assert (await llm.generate(ask())).ending == "completed"


@pytest.mark.parametrize("llm", [False], indirect=True)
async def test_no_provider_is_asked_before_the_generation_is_known_to_be_this_processs(llm, journal, mock):
    journal.elsewhere = True
    await llm.generate(ask())
    assert mock.calls == 0


@pytest.mark.parametrize("llm", [True], indirect=True)
@pytest.mark.parametrize("model", ["mock,n=6", "mock,n=5000,itl=1"], ids=["has ended", "still speaks"])
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_an_eager_one_asks_at_once_and_says_nothing_before(llm, journal, mock, model, elsewhere):
    journal.elsewhere = elsewhere
    journal.claiming.clear()
    call = asyncio.create_task(llm.generate(ask(model)))
    await until(lambda: llm._running and waiting(llm) >= 5)
    assert not call.done() and len(journal.events) == 1
    journal.claiming.set()
    if elsewhere:
        assert (await call).ending == "elsewhere"
        assert len(journal.events) == 1 and not llm.running
        await until(lambda: not mock.open_streams)
    else:
        await until(lambda: journal.texts)
        await llm.cancel(ask(model))
        assert (await call).text == "".join(journal.texts)


async def test_before_a_failure_is_told_the_process_may_end_itself(llm, journal):
    seen = []
    llm.failing = lambda: seen.append(list(journal.sealed))
    await llm.generate(ask("mock,status=500"))
    assert seen == [[]] and len(journal.sealed) == 1


@pytest.mark.parametrize("llm", [True], indirect=True)
async def test_a_replaced_model_is_told_after_the_claim(llm, journal):
    journal.claiming.clear()
    call = asyncio.create_task(llm.generate(ask("mock,status=500", chain=("mock,n=3",))))
    await until(lambda: llm._running and len(next(iter(llm._running.values()))[0].trace) == 1)
    journal.claiming.set()
    outcome = await call
    assert outcome.models == ((2, "mock,n=3", outcome.models[0][2]),) and outcome.text == text(3)


@pytest.mark.parametrize("error", [None, JournalUnavailable(), OSError()])
async def test_a_lost_journal_ends_the_recording_but_not_the_text(llm, journal, error):
    journal.lose_at, journal.error = 3, error
    outcome = await llm.generate(ask("mock,n=60,itl=5"))
    assert (outcome.ending, outcome.text) == ("completed", text(60))
    assert outcome.deltas[:2] == tuple((n, len(t)) for n, t in enumerate(journal.texts, 2))
    assert len(outcome.deltas) == 2
    assert (outcome.unanswered is not None) == bool(error), "an unanswered write may have been done"
    assert journal.sealed == []


async def test_a_replaced_model_is_told_before_its_text(llm, journal):
    outcome = await llm.generate(ask("mock,status=500", chain=("mock,status=400", "mock,n=3")))
    kinds = [(kind, data.get("model")) for kind, data in journal.events[1:4]]
    assert kinds == [("turn.model", "mock,status=400"), ("turn.model", "mock,n=3"), ("message.delta", None)]
    assert [(n, model) for n, model, _ in outcome.models] == [(2, "mock,status=400"), (3, "mock,n=3")]
    assert outcome.deltas[0][0] == 4


async def test_a_cancel_does_not_lose_the_number_of_a_replaced_model(llm, journal, mock):
    journal.gate.clear()
    call = asyncio.create_task(llm.generate(ask("mock,status=400", chain=("mock,n=3",))))
    await until(lambda: any(generation.trace and generation.trace[0].ended for generation, _ in llm._running.values()))
    await llm.cancel(ask())
    journal.gate.set()
    outcome = await call
    assert (outcome.ending, outcome.text, len(outcome.models), mock.calls) == ("cancelled", "", 1, 1)


async def test_what_was_received_before_a_cancel_is_told_and_stored(llm, journal, mock):
    call = asyncio.create_task(llm.generate(ask("mock,n=500,itl=3")))
    await until(lambda: len(journal.texts) >= 2)
    journal.gate.clear()
    await until(lambda: waiting(llm) >= 5)
    await llm.cancel(ask())
    await until(lambda: mock.closed_early == 1)
    assert not call.done()
    journal.gate.set()
    outcome = await call
    assert (outcome.ending, outcome.text) == ("cancelled", "".join(journal.texts))
    assert journal.sealed == [("turn_1/1", outcome)]


async def test_a_failed_generation_is_sealed_with_its_text(llm, journal):
    outcome = await llm.generate(ask("mock,fault=truncate,at=5"))
    assert (outcome.ending, "".join(journal.texts)) == ("failed", text(5))
    assert journal.sealed == [("turn_1/1", outcome)]


async def test_a_silent_generation_beats(llm, journal):
    call = asyncio.create_task(llm.generate(ask("mock,ttft=100")))
    await until(lambda: len(journal.beats) > 1)
    await call
    assert set(journal.beats) == {"turn_1/1"}


async def test_the_built_in_model_streams_word_by_word(llm, journal):
    outcome = await llm.generate(ask("scripted", intent="greeting"))
    assert "".join(journal.texts) == outcome.text
    assert journal.texts[0] == "No "
    assert len(journal.texts) > 5
