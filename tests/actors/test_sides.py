"""Several models answer one message side by side: what is streamed, which text is kept, and what it costs."""

import asyncio
import itertools

import pytest

from benchmarks.mock_spec import reply_tokens
from domain.events import CANDIDATE_COMPLETED, CANDIDATE_DELTA, DELTA, MODEL, RESET, replay
from storage.pages import PageQuery
from storage.reader import PostgresReader
from tests.actors.test_conversations import SLOW, eventually, text_of
from tests.actors.test_lost_generations import ledger
from tests.storage.conftest import make_conversation, make_send
from tests.storage.test_ownership import messages

QUICK, LONGER = "mock,n=5,itl=2", "mock,n=9,itl=25"
BROKEN = "mock,fault=status,status=400"


@pytest.fixture
def key(database_url, tenant):
    return make_conversation(database_url, tenant)


def said(text, n):
    return "".join(reply_tokens(text, n))


async def whole_stream(world, host, key, text, models, keep):
    """The turn's events, checked against what is stored and against its replay from Postgres."""
    accepted = await host.send(make_send(key, text, models=tuple(models), keep=keep))
    events = await world.events(key.tenant, accepted.turn.id)
    assert [event.n for event in events] == list(range(1, len(events) + 1))
    stored = await PostgresReader(world.pool).stored_turn(key.tenant, accepted.turn.id)
    kept = stored.message.content if stored.message else ""
    assert text_of(events) == kept
    rebuilt = replay(accepted.turn.id, stored.turn.attempt, stored.layout, kept)
    current = [event for event in events[:-1] if event.attempt == stored.turn.attempt]
    assert [(e.id, e.type) for e in rebuilt] == [(e.id, e.type) for e in current]
    assert [e.data for e in rebuilt[1:]] == [e.data for e in current[1:]]
    return stored, events


def candidates(events):
    """The text of each side, by its index, and how it ended."""
    texts, ends = {}, {}
    for event in events:
        if event.type == CANDIDATE_DELTA:
            texts[event.data["index"]] = texts.get(event.data["index"], "") + event.data["text"]
        elif event.type == CANDIDATE_COMPLETED:
            ends[event.data["index"]] = event.data
    return texts, ends


async def test_the_first_that_completes_is_kept_and_the_others_are_stopped(world, key):
    stored, events = await whole_stream(world, await world.host(), key, "race", [SLOW, QUICK], "first")
    texts, ends = candidates(events)
    assert stored.message.content == texts[1] == said("race", 5) and stored.message.model == QUICK
    assert said("race", 40).startswith(texts.get(0, "")) and len(texts.get(0, "")) < len(said("race", 40))
    assert set(ends) == {0, 1} and ends[1]["usage"]["completion_tokens"] == 5
    types = [event.type for event in events]
    assert types.index(CANDIDATE_DELTA) < types.index(MODEL) < types.index(DELTA)
    assert world.mock.open_streams == 0
    rows = await ledger(world, key, stored.turn.id)
    assert [(row["model"], row["why"], row["reply"]) for row in rows] == [
        (SLOW, "side", False),
        (QUICK, "side", True),
    ]


async def test_sides_speak_at_the_same_time(world, key):
    sides = ["mock,n=40,itl=25", "mock,n=41,itl=24"]  # a second: a busy machine gives what it held back in one piece
    _, events = await whole_stream(world, await world.host(), key, "both", sides, "all")
    order = [event.data["index"] for event in events if event.type == CANDIDATE_DELTA]
    changes = sum(one != other for one, other in itertools.pairwise(order))
    assert changes >= 4, order


async def test_the_judge_chooses_the_best(world, key):
    world.rules.are(judge="mock,mode=count")  # its prompt has two messages: it says 2
    stored, events = await whole_stream(world, await world.host(), key, "judge", [QUICK, LONGER], "best")
    assert stored.message.model == LONGER and stored.message.content == said("judge", 9)
    assert len([event for event in events if event.type == CANDIDATE_COMPLETED]) == 2
    trace = await world.trace(key.tenant, stored.turn.id)
    assert trace["side_by_side"]["chosen"] == 1 and trace["side_by_side"]["judge"]["said"] == "2"
    assert trace["chosen"] == LONGER and {one["model"] for one in trace["candidates"]} == {QUICK, LONGER}
    assert [row["why"] for row in await ledger(world, key, stored.turn.id)] == ["side", "side", "judge"]


@pytest.mark.parametrize("judge", ["mock,n=3", BROKEN])
async def test_a_judge_that_names_none_leaves_it_to_quality(world, key, judge):
    world.rules.are(judge=judge)
    stored, _ = await whole_stream(world, await world.host(), key, "nonsense", ["cheap", "strong"], "best")
    assert stored.message.model == "strong"
    assert "named none" in (await world.trace(key.tenant, stored.turn.id))["reason"]


async def test_all_are_kept_the_first_named_as_the_reply_and_the_rest_as_versions(world, key):
    host = await world.host()
    stored, _ = await whole_stream(world, host, key, "keep", [LONGER, QUICK, "cheap"], "all")
    assert stored.message.model == LONGER
    versions = (await PostgresReader(world.pool).versions(key.tenant, stored.message.id, PageQuery())).data
    kept = sorted((version.message.model, version.message.content) for version in versions)
    assert kept == sorted([(LONGER, said("keep", 9)), (QUICK, said("keep", 5)), ("cheap", said("keep", 4))])
    assert [version.superseded_by for version in versions].count(None) == 1
    assert [row["seq"] for row in await messages(world.pool, key)] == [1, 2, 3, 4]
    after = await host.send(make_send(key, "next", model="mock,mode=count", wait=True))
    assert after.message.content.strip() == "3"


@pytest.mark.parametrize("keep", ["first", "best", "all"])
async def test_a_side_that_fails_does_not_fail_the_turn(world, key, keep):
    stored, events = await whole_stream(world, await world.host(), key, "one fails", [BROKEN, QUICK], keep)
    assert stored.turn.status == "completed" and stored.message.content == said("one fails", 5)
    _, ends = candidates(events)
    assert ends[0]["error"]["code"] == "provider_error" and "error" not in ends[1]


async def test_the_turn_fails_if_all_sides_do(world, key):
    stored, events = await whole_stream(world, await world.host(), key, "none", [BROKEN, BROKEN + ",n=2"], "first")
    assert stored.turn.status == "failed" and stored.message is None
    assert stored.turn.error["code"] == "provider_error" and events[-1].type == "turn.failed"


async def test_cancelling_ends_all_sides(world, key):
    host = await world.host()
    accepted = await host.send(make_send(key, "stop", models=(SLOW, "mock,n=50,itl=30"), keep="all"))

    async def speaking():
        events = (await world.journal.progress(key.tenant, accepted.turn.id, 1)).events
        return {event.data["index"] for event in events if event.type == CANDIDATE_DELTA} == {0, 1}

    await eventually(speaking)
    await host.cancel(key, accepted.turn.id)
    events = await world.events(key.tenant, accepted.turn.id)
    assert events[-1].type == "turn.cancelled" and events[-1].data["message"] is None
    assert world.mock.open_streams == 0
    rows = await ledger(world, key, accepted.turn.id)
    assert [(row["why"], row["estimated"]) for row in rows] == [("side", True), ("side", True)]


async def test_sides_whose_process_died_begin_again(world, key):
    host = await world.host()
    accepted = await host.send(make_send(key, "again", models=(LONGER, "mock,n=12,itl=25"), keep="first"))
    following = asyncio.create_task(world.events(key.tenant, accepted.turn.id))

    async def speaking():
        progress = await world.journal.progress(key.tenant, accepted.turn.id, 1)
        return any(event.type == CANDIDATE_DELTA for event in progress.events)

    await eventually(speaking)
    await world.llm.die()
    events = await following
    second = [event for event in events if event.attempt == 2]
    assert second[0].type == RESET and text_of(second) == said("again", 9)
    ended = await world.store.ended(key.tenant, accepted.turn.id)
    assert ended.message.content == said("again", 9)
    lost = [row for row in await ledger(world, key, accepted.turn.id) if row["attempt"] == 1]
    assert lost and all(row["estimated"] and not row["reply"] for row in lost)


async def test_sides_whose_owner_died_begin_again_with_the_next_one(world, key):
    host = await world.host()
    accepted = await host.send(make_send(key, "owner", models=(SLOW, "mock,n=45,itl=25"), keep="all"))

    async def speaking():
        progress = await world.journal.progress(key.tenant, accepted.turn.id, 1)
        return any(event.type == CANDIDATE_DELTA for event in progress.events)

    await eventually(speaking)
    await world.kill(host)
    await world.host()
    ended = await eventually(lambda: world.store.ended(key.tenant, accepted.turn.id), 20)
    assert ended.turn.status == "completed" and ended.turn.attempt == 2
    assert ended.message.content == said("owner", 40)


async def test_without_redis_sides_still_answer(world, key):
    from deployments.hosted_llm import HostedLLM
    from storage.journal import RedisJournal
    from storage.redis import open_redis

    world.journal = RedisJournal(open_redis("redis://127.0.0.1:1"))
    world.llm.current = HostedLLM(world.journal, world.catalog)
    ended = await (await world.host()).send(make_send(key, "away", models=("cheap", "strong"), keep="all", wait=True))
    assert ended.message.content == said("away", 4)
