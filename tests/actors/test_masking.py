"""Tenants whose stored text is masked: nothing of it stands anywhere, and turns go on as they do."""

import pytest

from actors.host import ConversationHost
from actors.parts import HostLimits
from domain.commands import Append
from domain.errors import Unavailable
from domain.events import DELTA, Position, replay
from domain.ids import new_id
from storage.leases import PostgresLeases
from storage.masking import MaskedConversations, masks_of
from storage.tenants import PostgresTenants
from tests.storage.conftest import make_conversation, make_send
from tests.storage.memory_world import MemoryWorld

SAID = "I am jane@acme.example, +49 30 1234567, card 4111 1111 1111 1111"
KEPT = "I am ****@****.*******, +** ** *******, card **** **** **** ****"


@pytest.fixture
async def rows(world, database_url):
    made = MemoryWorld(database_url, world.pool)
    yield made
    await made.close()


@pytest.fixture
async def asked(world, rows):
    """A conversation of a tenant that wants it, and a host that heeds it."""
    tenant = await rows.tenant()
    await rows.run("""UPDATE brain.tenants SET settings = '{"pii_masking": "mask"}' WHERE id = %s""", tenant)
    host = await masking(world, masks_of(PostgresTenants(world.pool)))
    return host, make_conversation(rows.url, tenant, "jane")


async def masking(world, masks):
    async def resume(key):
        await world.hosts[-1].resume(key)

    store = MaskedConversations(world.pool, masks)
    parts = (world.journal, world.llm, world.classifier, world.catalog, resume, HostLimits(lease=5), world.rules)
    host = ConversationHost(store, PostgresLeases(world.pool), *parts, world.vitals)
    await host.start()
    world.hosts.append(host)
    return host


async def test_what_is_stored_and_what_the_model_is_told_is_masked(world, rows, asked):
    host, key = asked
    ended = await host.send(make_send(key, SAID, wait=True))
    assert ended.user_message.content == KEPT
    prompt = world.llm.asked[-1].messages
    assert prompt[-1]["content"] == KEPT, "no provider is told what is not kept"
    await host.send(make_send(key, "and again?", wait=True))
    assert KEPT in [one["content"] for one in world.llm.asked[-1].messages]
    tables = ["messages", "turns", "summaries", "outbox", "idempotency", "usage"]
    for table in tables:
        for word in ("jane@", "1234567", "4111", "acme"):
            found = await rows.run(
                f"SELECT count(*) FROM brain.{table} t WHERE tenant_id = %s AND t::text LIKE %s",
                key.tenant,
                f"%{word}%",
            )
            assert found == [(0,)], (table, word)


async def test_a_reply_is_streamed_as_it_came_and_kept_masked_at_the_same_places(world, rows, asked):
    host, key = asked
    accepted = await host.send(make_send(key, SAID, model="mock,n=12,itl=3"))
    live = await world.events(key.tenant, accepted.turn.id, Position())
    stored = await world.store.ended(key.tenant, accepted.turn.id)
    assert stored is not None and stored.message is not None
    [(layout,)] = await rows.run("SELECT layout FROM brain.turns WHERE id = %s", accepted.turn.id)
    again = replay(accepted.turn.id, 1, layout, stored.message.content)
    assert [(one.id, one.type, len(one.data.get("text", ""))) for one in again] == [
        (one.id, one.type, len(one.data.get("text", ""))) for one in live[:-1]
    ]
    assert live[0].data["user_message"]["content"] == KEPT
    assert live[-1].data["message"]["content"] == stored.message.content
    assert sum(one.type == DELTA for one in live) > 1


async def test_a_reply_with_personal_data_is_kept_without(world, rows, asked, monkeypatch):
    host, key = asked
    generate = world.llm.current.generate

    async def quotes(request):
        outcome = await generate(request)
        said = "write to help@acme.example"
        return type(outcome)(**{**{n: getattr(outcome, n) for n in outcome.__slots__}, "text": said, "deltas": ()})

    monkeypatch.setattr(world.llm.current, "generate", quotes)
    ended = await host.send(make_send(key, "whom do I ask?", wait=True))
    assert ended.message.content == "write to ****@****.*******"
    assert await rows.run("SELECT content FROM brain.messages WHERE id = %s", ended.message.id) == [
        ("write to ****@****.*******",)
    ]


async def test_other_tenants_texts_are_kept_as_they_were(world, rows, asked):
    host, _ = asked
    other = make_conversation(rows.url, await rows.tenant())
    ended = await host.send(make_send(other, SAID, wait=True))
    assert ended.user_message.content == SAID


async def test_what_an_agent_says_is_masked_too(world, rows, asked):
    host, key = asked
    said = await host.append(Append(key, "key_1", new_id("msg"), b"h", new_id("msg"), SAID))
    assert said.message.content == KEPT


async def test_nothing_is_stored_while_nobody_can_say_whether_to_mask(world, rows, asked):
    async def nobody(tenant):
        raise Unavailable("the settings cannot be read")

    _, key = asked
    host = await masking(world, nobody)
    with pytest.raises(Unavailable):
        await host.send(make_send(key, SAID, wait=True))
    assert await rows.run("SELECT count(*) FROM brain.messages WHERE tenant_id = %s", key.tenant) == [(0,)]
