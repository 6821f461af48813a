"""Shadow answers: another model answers a share of the turns too, and nobody hears it."""

import pytest

from actors.shadowing import sampled
from domain.ids import new_id
from tests.actors.test_conversations import eventually
from tests.actors.test_lost_generations import ledger
from tests.storage.conftest import make_conversation, make_send
from tests.storage.test_ownership import messages


@pytest.fixture
def key(database_url, tenant):
    return make_conversation(database_url, tenant)


async def shadowed(world, key, turn_id):
    return (await world.trace(key.tenant, turn_id)).get("shadow")


async def test_a_sampled_turn_is_answered_by_both_models_and_compared(world, key):
    world.rules.are(shadow={"model": "strong", "share": 1})
    host = await world.host()
    ended = await host.send(make_send(key, "compare", model="cheap", wait=True))
    assert ended.message.model == "cheap"
    report = await eventually(lambda: shadowed(world, key, ended.turn.id))
    assert (report["model"], report["ending"], report["similarity"]) == ("strong", "completed", 1.0)
    assert report["shadow"]["usage"]["completion_tokens"] == 6
    assert report["shadow"]["cost_usd"] > report["reply"]["cost_usd"] > 0
    assert report["reply"]["total_ms"] > 0 and report["shadow"]["total_ms"] > 0
    rows = await ledger(world, key, ended.turn.id)
    assert [(row["call"], row["model"], row["why"], row["reply"]) for row in rows] == [
        (1, "cheap", "first", True),
        (2, "strong", "shadow", False),
    ]
    assert len(await messages(world.pool, key)) == 2
    events = await world.events(key.tenant, ended.turn.id)
    assert [event.n for event in events] == list(range(1, len(events) + 1))


async def test_a_failing_shadow_says_so_and_costs_the_turn_nothing(world, key):
    world.rules.are(shadow={"model": "mock,fault=status,status=400", "share": 1})
    ended = await (await world.host()).send(make_send(key, "fails", model="cheap", wait=True))
    report = await eventually(lambda: shadowed(world, key, ended.turn.id))
    assert report["ending"] == "failed" and report["similarity"] is None and ended.turn.status == "completed"


async def test_a_shadow_that_its_stopping_host_cuts_off_is_charged_for_and_ended(world, key):
    slow = "mock,n=64,itl=10000"  # a first token, and then nothing for long
    world.rules.are(shadow={"model": slow, "share": 1})
    host = await world.host()
    ended = await host.send(make_send(key, "cut off", model="cheap", wait=True))

    async def streams(number):
        return world.mock.open_streams == number

    await eventually(lambda: streams(1))
    await host.stop()
    [_, row] = await ledger(world, key, ended.turn.id)  # before the host's process may end
    assert (row["model"], row["why"], row["reply"], row["estimated"]) == (slow, "shadow", False, True)
    assert row["prompt_tokens"] > 0 and row["completion_tokens"] >= 1
    report = await shadowed(world, key, ended.turn.id)
    assert (report["ending"], report["similarity"]) == ("cancelled", None)
    await eventually(lambda: streams(0))


async def test_none_is_begun_while_there_is_no_room(world, key):
    world.rules.are(shadow={"model": "strong", "share": 1})
    for room in (0, 1):
        host = await world.host(shadows=room)
        await host.send(make_send(key, "full", model="cheap", wait=True))
        assert len(host.parts.shadows) == room


async def test_the_share_is_that_of_the_turns_and_the_same_everywhere():
    turns = [new_id("turn") for _ in range(4000)]
    taken = [turn for turn in turns if sampled(turn, 0.25)]
    assert 850 < len(taken) < 1150 and all(sampled(turn, 0.25) for turn in taken)
    assert not any(sampled(turn, 0.0) for turn in turns) and all(sampled(turn, 1.0) for turn in turns)
