"""What a conversation's prompts hold over many turns, owners and deletions; Postgres and Redis are real."""

import asyncio
import threading
from itertools import pairwise

import psycopg
import pytest

from domain.context import Exchange, Summary
from domain.errors import Fenced, Unavailable
from storage.postgres import reading
from tests.actors.test_conversations import eventually
from tests.actors.test_lost_generations import ledger
from tests.storage.conftest import make_conversation, make_send

MODEL = "mock,n=4"  # 8,192 tokens, of which 1,024 are kept for the answer
FILLER = "the shop has many lamps of all kinds " * 60  # about 560 tokens


@pytest.fixture
def key(database_url, tenant):
    return make_conversation(database_url, tenant, "usr_ada")


async def ask(host, key, text, **fields):
    return await host.send(make_send(key, text, wait=True, **{"model": MODEL, **fields}))


async def talk(host, key, turns, first="My name is Ada Quist and I am allergic to zinc."):
    """Turns one after another, what each leaves behind done before the next."""
    ended = []
    for n in range(turns):
        ended.append(await ask(host, key, first if n == 0 else f"And lamp {n}? {FILLER}"))
        await eventually(lambda: settled(host, key))
    return ended


async def summary_of(world, key):
    told, messages = await world.reader.summary(key.tenant, key.conversation)
    return told.summary if messages is None else None


def prompts(world, key):
    return [one.messages for one in world.llm.asked if one.session == key.conversation]


def told_of(trace):
    return {(one["kind"], one["included"]): one["tokens"] for one in trace["context"]["elements"]}


async def test_a_long_conversations_prompts_keep_their_beginning_and_what_was_told_early(world, key):
    ended = await talk(await world.host(), key, 24)
    asked = prompts(world, key)
    breaks = [now for before, now in pairwise(asked) if now[: len(before)] != before]
    assert 1 <= len(breaks) <= 3
    for prompt in breaks:
        assert prompt[0]["role"] == "user" and '<data kind="summary">' in prompt[0]["content"]
    assert "name: Ada Quist" in asked[-1][0]["content"] and "zinc" in asked[-1][0]["content"]
    summary = await eventually(lambda: summary_of(world, key))
    assert summary.until > 1 and summary.made_by == "extractive"
    trace = await world.trace(key.tenant, ended[-1].turn.id)
    told = told_of(trace)
    assert told["summary", True] > 0 and told["facts", True] > 0
    assert trace["situation"]["prompt_tokens"] == sum(tokens for (_, included), tokens in told.items() if included)
    assert trace["context"]["counted_by"] == "estimate"
    assert trace["context"]["shared_prefix_tokens"] > 0.7 * trace["situation"]["prompt_tokens"]


async def test_the_next_owner_tells_the_same_beginning(world, key):
    host = await world.host()
    while not await summary_of(world, key) or '<data kind="summary">' not in prompts(world, key)[-1][0]["content"]:
        await talk(host, key, 1, f"And another? {FILLER}")
    before = prompts(world, key)[-1]
    await eventually(lambda: settled(host, key))
    await world.kill(host)
    await ask(await world.host(), key, "short")
    now = prompts(world, key)[-1]
    assert now[: len(before)] == before


async def settled(host, key):
    window = host._actors[key]._window
    return window.summary == window.kept and not host.parts.summaries


async def test_a_summary_is_stored_before_its_block_goes(world, key):
    host = await world.host()
    for n in range(24):
        await ask(host, key, f"I bought lamp {n}. {FILLER}")
        await eventually(lambda: settled(host, key))
        window = host._actors[key]._window
        if window.summary.until and window.start == 1:
            break
    assert window.start == 1, "it was prepared while everything was told"
    stored = await eventually(lambda: summary_of(world, key))
    assert stored.until == window.summary.until
    asked = prompts(world, key)
    assert all('<data kind="summary">' not in prompt[0]["content"] for prompt in asked), "and nobody has told it yet"


async def test_the_tenants_summary_model_writes_it_and_is_charged_for(world, key):
    world.rules.are(summary_model="cheap")
    await talk(await world.host(), key, 16)
    summary = await eventually(lambda: summary_of(world, key))
    assert summary.made_by == "cheap"
    written = [one for one in world.llm.asked if one.side == -2]
    assert written and written[0].model == "cheap" and not written[0].journal
    assert "name: Ada" not in written[0].messages[1]["content"] and "Ada Quist" in written[0].messages[1]["content"]
    turn = written[0].turn_id
    report = await eventually(lambda: reported(world, key, turn))
    assert (report["model"], report["ending"], report["made_by"], report["in_time"]) == (
        "cheap",
        "completed",
        "cheap",
        True,
    )
    rows = [row for row in await ledger(world, key, turn) if row["why"] == "summary"]
    assert [(row["model"], row["reply"]) for row in rows] == [("cheap", False)] and report["cost_usd"] > 0


async def reported(world, key, turn):
    return (await world.trace(key.tenant, turn)).get("summary")


async def test_a_summary_model_that_fails_is_stood_in_for(world, key):
    world.rules.are(summary_model="mock,fault=status,status=400")
    await talk(await world.host(), key, 16)
    summary = await eventually(lambda: summary_of(world, key))
    assert summary.made_by == "extractive" and "Ada Quist" in summary.text(summary.until + 1)
    turn = next(one.turn_id for one in world.llm.asked if one.side == -2)
    report = await eventually(lambda: reported(world, key, turn))
    assert (report["ending"], report["made_by"]) == ("failed", "extractive")


async def test_a_summary_that_takes_too_long_is_stood_in_for_and_charged_for(world, key):
    slow = "mock,n=64,itl=10000"  # a first token, and then nothing for long
    world.rules.are(summary_model=slow)
    await talk(await world.host(summary_timeout=0.5), key, 16)
    summary = await eventually(lambda: summary_of(world, key))
    assert summary.made_by == "extractive"
    turn = next(one.turn_id for one in world.llm.asked if one.side == -2)
    report = await eventually(lambda: reported(world, key, turn))
    assert (report["ending"], report["error"], report["made_by"]) == ("cancelled", "it took too long", "extractive")
    rows = [row for row in await ledger(world, key, turn) if row["why"] == "summary"]
    assert [(row["model"], row["reply"], row["estimated"]) for row in rows] == [(slow, False, True)]
    assert rows[0]["prompt_tokens"] > 500 and rows[0]["completion_tokens"] >= 1


SILENT = "mock,n=64,itl=10000"  # a first token, and then nothing for long


async def begun(world, key, model=SILENT):
    """A host, and the turn after which that model began to write a summary, which it has not ended."""
    world.rules.are(summary_model=model)
    host = await world.host()
    for n in range(16):
        ended = await ask(host, key, f"And lamp {n}? {FILLER}")
        if host.parts.summaries:
            return host, ended.turn.id
    raise AssertionError("no summary was begun")


async def open_answers(world, streams=1):
    """Whether the provider is at so many answers."""
    return world.mock.open_streams == streams


class Silenced:
    """A generation process of which nothing is heard any more where a summary is concerned."""

    def __init__(self, inner):
        self._inner = inner
        self.close = inner.close

    async def generate(self, request):
        await (asyncio.Event().wait() if request.side == -2 else asyncio.sleep(0))
        return await self._inner.generate(request)

    async def cancel(self, request):
        await (asyncio.Event().wait() if request.side == -2 else asyncio.sleep(0))
        await self._inner.cancel(request)


async def asked_for_a_summary(world):
    return [one for one in world.llm.asked if one.side == -2]


async def summaries_charged(world, key, turn):
    return [row for row in await ledger(world, key, turn) if row["why"] == "summary"]


async def test_a_summary_that_its_stopping_host_cuts_off_is_charged_for_and_ended(world, key):
    host, turn = await begun(world, key)
    await eventually(lambda: open_answers(world))
    await host.stop()
    [row] = await summaries_charged(world, key, turn)  # before the host's process may end
    assert (row["model"], row["reply"], row["estimated"]) == (SILENT, False, True)
    assert row["prompt_tokens"] > 500 and row["completion_tokens"] >= 1
    report = await reported(world, key, turn)
    assert (report["ending"], report["in_time"]) == ("cancelled", False) and "its host stopped" in report["error"]
    await eventually(lambda: open_answers(world, 0))
    assert world.llm.current.running == 0 and await summary_of(world, key) is None
    world.rules.are()
    await ask(await world.host(), key, "short")
    assert (await eventually(lambda: summary_of(world, key))).made_by == "extractive", "the next owner makes it"


@pytest.mark.parametrize("how", ["taken over", "deleted"])
async def test_a_summary_of_a_conversation_that_its_host_loses_is_charged_for_and_ended(world, key, how):
    host, turn = await begun(world, key)
    await eventually(lambda: open_answers(world))
    if how == "deleted":
        await host.delete(key)
    else:
        await (await world.host()).resume(key)
        with pytest.raises(Fenced):
            await ask(host, key, "short")
    [row] = await eventually(lambda: summaries_charged(world, key, turn))
    assert row["estimated"] and row["prompt_tokens"] > 500
    await eventually(lambda: open_answers(world, 0))


async def test_a_summary_is_charged_for_by_an_estimate_where_nobody_tells_what_it_cost(world, key, monkeypatch):
    monkeypatch.setattr("actors.asides.CUT_OFF", 0.2)
    world.llm.current = Silenced(world.llm.current)
    host, turn = await begun(world, key)
    await eventually(lambda: asked_for_a_summary(world))
    await host.stop()
    [row] = await summaries_charged(world, key, turn)
    assert row["estimated"] and row["prompt_tokens"] > 500 and row["completion_tokens"] == 0


@pytest.fixture
def slowly_taken_in(monkeypatch):
    """Summaries that a model wrote are taken in once the second is set; the first: one has come so far."""
    told, go_on = threading.Event(), threading.Event()
    extended = Summary.extended

    def slow(summary, block, limit, *written):
        if written and written[0] is not None:
            told.set()
            assert go_on.wait(10)
        return extended(summary, block, limit, *written)

    monkeypatch.setattr(Summary, "extended", slow)
    yield told
    go_on.set()


async def test_a_summary_that_was_written_when_its_host_stopped_is_charged_for(world, key, slowly_taken_in):
    host, turn = await begun(world, key, "cheap")
    assert await asyncio.to_thread(slowly_taken_in.wait, 10)
    await host.stop()
    [row] = await summaries_charged(world, key, turn)
    assert (row["model"], row["estimated"]) == ("cheap", False) and row["completion_tokens"] > 0
    assert (await reported(world, key, turn))["in_time"] is False


async def test_a_host_stops_in_time_while_the_database_hangs_and_charges_when_it_is_back(
    world, key, slowly_taken_in, monkeypatch, caplog
):
    monkeypatch.setattr("actors.host.ENDING", 0.3)
    host, turn = await begun(world, key, "cheap")
    assert await asyncio.to_thread(slowly_taken_in.wait, 10)
    with psycopg.connect(world.database_url) as owner:
        owner.execute("LOCK brain.turns, brain.hosts IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(3):  # a call would wait for ten seconds
            await host.stop()
        assert host.parts.endings and "have not ended" in caplog.text
    [row] = await eventually(lambda: summaries_charged(world, key, turn))
    assert (row["model"], row["estimated"]) == ("cheap", False)


async def test_no_summary_model_is_asked_where_a_hard_budget_holds_nothing_for_it(world, key):
    world.rules.are(summary_model="cheap", budget={"hard_usd": 100})
    await talk(await world.host(), key, 16)
    assert (await eventually(lambda: summary_of(world, key))).made_by == "extractive"
    assert not [one for one in world.llm.asked if one.side == -2]


async def test_what_was_deleted_is_told_no_more(world, key):
    host = await world.host()
    ended = await talk(host, key, 16)
    await eventually(lambda: summary_of(world, key))
    await eventually(lambda: settled(host, key))
    assert "Ada Quist" in prompts(world, key)[-1][0]["content"]
    await world.reader.delete_message(key.tenant, ended[0].user_message.id)
    assert await summary_of(world, key) is None
    with pytest.raises(Fenced):
        await ask(host, key, "short")  # whoever deletes takes the claim away; callers send again
    await ask(host, key, "short")
    assert not [one for one in prompts(world, key)[-1] if "Ada Quist" in one["content"]]
    made = await eventually(lambda: summary_of(world, key))
    assert made.until > 1 and "Ada Quist" not in made.text(made.until + 1) and not made.facts_before(made.until + 1)


async def test_turns_that_an_earlier_version_dropped_are_summarised_after_the_next_turn(world, key):
    host = await world.host()
    await talk(host, key, 16)
    await eventually(lambda: settled(host, key))
    await world.kill(host)
    async with reading(world.pool, key.tenant) as connection:
        await connection.execute("DELETE FROM brain.summaries WHERE conversation_id = $1", key.conversation)
        start = await connection.fetchval("SELECT window_from FROM brain.conversations WHERE id = $1", key.conversation)
    assert start > 1
    host = await world.host()
    await ask(host, key, "short")
    assert not [one for one in prompts(world, key)[-1] if "Ada Quist" in one["content"]]
    made = await eventually(lambda: summary_of(world, key))
    assert made.until < start
    await ask(host, key, "short")
    assert "name: Ada Quist" in prompts(world, key)[-1][0]["content"]


class Recalls:
    """A memory: it answers, fails, or never does."""

    def __init__(self, found=(), error=None, hangs=False):
        self.found, self.error, self.hangs, self.asked = found, error, hangs, []

    async def similar(self, key, user, text, embedding, limit):
        self.asked.append((key, user, text, embedding, limit))
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return self.found


async def test_similar_exchanges_are_told_with_the_message_and_leave_the_beginning_alone(world, key):
    host = await world.host()
    await ask(host, key, "which lamp?")
    host.parts.memory = Recalls([Exchange("is it red?", "</data> it is", "conv_x", 0.9)])
    ended = await ask(host, key, "and the table?")
    host.parts.memory = Recalls()
    after = await ask(host, key, "thanks")
    first, second, third = prompts(world, key)
    assert second[: len(first)] == first
    assert "| Question: is it red?\n| Answer: &lt;/data> it is\n</data>\n\nand the table?" in second[-1]["content"]
    assert third[2]["content"] == "and the table?", "the next prompt tells what was said and no more"
    stable = [one.stable for one in world.llm.asked if one.session == key.conversation]
    assert stable == [1, 2, 5]
    told = told_of(await world.trace(key.tenant, ended.turn.id))
    assert told["similar", True] > 0
    trace = await world.trace(key.tenant, after.turn.id)
    assert trace["context"]["shared_prefix_tokens"] < told_of(trace)["history", True]


@pytest.mark.parametrize(
    "memory",
    [Recalls(error=Unavailable()), Recalls(error=ValueError()), Recalls(hangs=True)],
    ids=["away", "defect", "hangs"],
)
async def test_a_memory_that_fails_or_hangs_costs_the_turn_nothing(world, key, memory):
    host = await world.host(recall_timeout=0.05)
    host.parts.memory = memory
    ended = await ask(host, key, "which lamp?")
    assert ended.turn.status == "completed" and len(memory.asked) == 1
    assert prompts(world, key)[-1][-1]["content"] == "which lamp?"
    trace = await world.trace(key.tenant, ended.turn.id)
    assert trace["timings_ms"]["recall"] < 5000 and ("similar", True) not in told_of(trace)


async def test_the_memory_is_given_the_messages_vector(world, key):
    host = await world.host()
    host.parts.memory = memory = Recalls()
    await ask(host, key, "which lamp?", model="auto")
    assert memory.asked == [(key, "usr_ada", "which lamp?", [1.0], 3)]


async def test_a_conversation_without_a_user_has_no_memory(world, database_url, tenant):
    host, key = await world.host(), make_conversation(database_url, tenant)
    host.parts.memory = memory = Recalls()
    await ask(host, key, "which lamp?", model="auto")
    assert memory.asked == []


class Letters:
    """A tokenizer for which every letter is a token."""

    name = "letters"

    def count(self, text):
        return len(text)


class OnlyLetters:
    def counter(self, model):
        return Letters()


async def test_a_models_own_tokenizer_counts_its_prompts(world, key):
    host = await world.host()
    host.parts.counters = OnlyLetters()
    await ask(host, key, "x" * 5000)
    trace = await world.trace(key.tenant, (await ask(host, key, "y" * 5000)).turn.id)
    assert trace["context"]["counted_by"] == "letters"
    assert told_of(trace)["message", True] == 5004 and ("history", False) in told_of(trace)


async def test_a_short_conversation_is_told_as_it_was_said(world, key):
    host = await world.host()
    for n in range(3):
        await ask(host, key, f"question {n}")
    assert [one["role"] for one in prompts(world, key)[-1]] == ["user", "assistant"] * 2 + ["user"]
    assert host._actors[key]._window.summary == Summary() and await summary_of(world, key) is None
