"""What an agent puts into a conversation: its place, its number, and the prompts that tell it."""

import asyncio

import pytest

from actors.window import Window
from domain.commands import Append
from domain.errors import ConversationEnded, Fenced, IdempotencyMismatch, MessageGone
from domain.ids import new_id
from tests.actors.test_context import ask, prompts
from tests.actors.test_conversations import SLOW
from tests.actors.test_window import conversation
from tests.storage.conftest import make_conversation, make_send
from tests.storage.test_ownership import messages

NOTE = "The parcel was found."


@pytest.fixture
def key(database_url, tenant):
    return make_conversation(database_url, tenant, "usr_ada")


def make_append(key, content=NOTE, **changes):
    fields = {"idempotency_key": new_id("req"), "body_hash": content.encode(), "message_id": new_id("msg"), **changes}
    return Append(key, "key_1", content=content, **fields)


async def test_later_prompts_tell_it_at_its_place_whoever_owns_the_conversation(world, key):
    host = await world.host()
    await ask(host, key, "where is it?")
    appended = await host.append(make_append(key, metadata={"case": 7}))
    assert (appended.message.role, appended.message.seq, appended.replayed) == ("system", 3, False)
    assert appended.message.metadata == {"case": 7}
    await ask(host, key, "thanks")
    await ask(await world.host(), key, "bye")  # which takes over, and reads it
    told = [[(one["role"], one["content"]) for one in prompt] for prompt in prompts(world, key)]
    assert [role for role, _ in told[1]] == ["user", "assistant", "system", "user"]
    assert told[1][2] == told[2][2] == ("system", NOTE)
    assert told[2][: len(told[1])] == told[1], "the beginning stays as it was"


async def test_beside_a_running_turn_it_takes_the_next_number_and_the_turn_goes_on(world, key):
    host = await world.host()
    running = asyncio.create_task(host.send(make_send(key, "long", model=SLOW, wait=True)))
    async with asyncio.timeout(20):
        while not prompts(world, key):
            await asyncio.sleep(0.01)
    appended = await host.append(make_append(key))
    assert appended.message.seq == 2
    assert (await running).message.seq == 3
    await ask(host, key, "and now?")
    assert [one["role"] for one in prompts(world, key)[-1]] == ["user", "assistant", "system", "user"]


async def test_one_key_adds_one_message(world, key):
    host = await world.host()
    first = make_append(key)
    appended = await host.append(first)
    again = await host.append(make_append(key, idempotency_key=first.idempotency_key))
    assert again.replayed and again.message == appended.message
    assert (await host.append(first)).message == appended.message, "a call that is repeated"
    with pytest.raises(IdempotencyMismatch):
        await host.append(make_append(key, "other", idempotency_key=first.idempotency_key))
    assert [row["seq"] for row in await messages(world.pool, key)] == [1]
    await ask(host, key, "hi")
    assert [one["role"] for one in prompts(world, key)[-1]] == ["system", "user"]
    await world.reader.delete_message(key.tenant, appended.message.id)
    with pytest.raises(MessageGone):
        await host.append(first)


async def test_neither_a_superseded_owner_nor_an_ended_conversation_takes_one(world, key):
    old, new = await world.host(), await world.host()
    await old.resume(key)
    await new.resume(key)
    with pytest.raises(Fenced):
        await old.append(make_append(key))
    owner = (await world.store.activate(key, new.id)).ownership
    await world.store.change(key, owner, {}, True)
    with pytest.raises(ConversationEnded):
        await world.store.append(owner, make_append(key))
    assert await messages(world.pool, key) == []


def test_a_window_takes_it_in_once():
    window = Window(conversation(), 1, [])
    size = window.size
    window.noted(1, NOTE)
    once = window.size
    window.noted(1, NOTE)
    assert once > size and window.size == once and len(window.messages) == 1
