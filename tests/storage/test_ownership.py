"""The ownership protocol, on a real database: who may write, in which order, and what a repeated call finds."""

import asyncio
import uuid

import psycopg
import pytest

from domain.commands import UnfinishedTurn
from domain.context import Summary
from domain.errors import ConversationBusy, ConversationEnded, Fenced, IdempotencyMismatch, NotFound
from domain.turn import TurnStatus
from storage.conversations import PostgresConversations
from storage.migrations import downgrade, offline_sql, upgrade
from storage.postgres import reading
from tests.conftest import make_database
from tests.servers.given import open_pool, servers
from tests.storage.conftest import make_conversation, make_reply, make_send

HOST_A, HOST_B = str(uuid.uuid4()), str(uuid.uuid4())


def unfinished(accepted, send):
    return UnfinishedTurn(accepted.turn, accepted.user_message, send.model, {}, True, True)


async def messages(pool, key):
    async with reading(pool, key.tenant) as connection:
        return await connection.fetch(
            "SELECT seq, role, content, status FROM brain.messages WHERE conversation_id = $1 ORDER BY seq",
            key.conversation,
        )


async def superseded_owner_cannot_write(store, key):
    """The scenario that fails as soon as one write is not fenced."""
    old = (await store.activate(key, HOST_A)).ownership
    first = make_send(key)
    running = unfinished(await store.accept(key, old, first), first)
    await store.accept(key, old, make_send(key, "queued"))
    new = (await store.activate(key, HOST_B)).ownership
    assert new.epoch == old.epoch + 1
    writes = {
        "accept": lambda: store.accept(key, old, make_send(key)),
        "start": lambda: store.start(key, old, running.turn.id),
        "next_attempt": lambda: store.next_attempt(key, old, running.turn.id, 2),
        "finish": lambda: store.finish(key, old, running, 1, make_reply()),
        "change": lambda: store.change(key, old, {"title": "mine"}, end=False),
        "keep_summary": lambda: store.keep_summary(key, old, Summary()),
        "delete": lambda: store.delete(key, old),
    }
    written = []
    for name, write in writes.items():
        try:
            await write()
        except Fenced:
            continue
        written.append(name)
    assert written == []


async def test_a_superseded_owner_cannot_write(store, key):
    await superseded_owner_cannot_write(store, key)


async def test_a_planted_unfenced_write_is_found(postgres_folder):
    url = make_database(postgres_folder)
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO brain.tenants (id, name) VALUES ('ten_x', 'x')")
        connection.execute(
            "CREATE OR REPLACE FUNCTION brain.fence(p_tenant text, p_conversation text, p_epoch bigint,"
            " p_activation uuid) RETURNS void LANGUAGE plpgsql AS 'BEGIN END'"
        )
    pool = await open_pool(url, 2)
    with pytest.raises(AssertionError):
        await superseded_owner_cannot_write(PostgresConversations(pool), make_conversation(url, "ten_x"))
    await pool.close()


async def test_a_repeated_epoch_of_a_restored_backup_is_fenced_by_the_activation(store, key, database_url):
    old = (await store.activate(key, HOST_A)).ownership
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE brain.conversations SET epoch = epoch - 1 WHERE id = %s", (key.conversation,))
    new = (await store.activate(key, HOST_B)).ownership
    assert new.epoch == old.epoch
    with pytest.raises(Fenced):
        await store.accept(key, old, make_send(key))


async def test_a_turn_is_kept_in_order_with_gapless_numbers(store, pool, key):
    owner = (await store.activate(key, HOST_A)).ownership
    one, two = make_send(key, "one"), make_send(key, "two")
    first, second = await store.accept(key, owner, one), await store.accept(key, owner, two)
    assert (first.turn.status, second.turn.status) == (TurnStatus.RUNNING, TurnStatus.QUEUED)
    await store.finish(key, owner, unfinished(first, one), 1, make_reply("answer one"))
    assert await store.start(key, owner, second.turn.id) is False
    await store.finish(key, owner, unfinished(second, two), 1, make_reply("answer two"))
    assert [tuple(row)[:3] for row in await messages(pool, key)] == [
        (1, "user", "one"),
        (2, "user", "two"),
        (3, "assistant", "answer one"),
        (4, "assistant", "answer two"),
    ]


async def test_a_turn_has_one_reply_however_often_it_is_finished(store, pool, key):
    owner = (await store.activate(key, HOST_A)).ownership
    send = make_send(key)
    turn = unfinished(await store.accept(key, owner, send), send)
    first = await store.finish(key, owner, turn, 1, make_reply("first"))
    again = await store.finish(key, owner, turn, 2, make_reply("second"))
    assert again == first
    assert len(await messages(pool, key)) == 2


async def test_a_key_names_one_turn_also_for_fifty_at_once(store, pool, key):
    owner = (await store.activate(key, HOST_A)).ownership
    sends = [make_send(key, idempotency_key="same") for _ in range(50)]
    accepted = await asyncio.gather(*(store.accept(key, owner, send) for send in sends))
    assert len({found.turn.id for found in accepted}) == 1
    assert sum(not found.replayed for found in accepted) == 1
    assert len(await messages(pool, key)) == 1
    with pytest.raises(IdempotencyMismatch):
        await store.accept(key, owner, make_send(key, "another", idempotency_key="same"))


async def test_a_refused_message_frees_its_key_and_its_number(store, pool, key):
    owner = (await store.activate(key, HOST_A)).ownership
    await store.accept(key, owner, make_send(key))
    with pytest.raises(ConversationBusy):
        await store.accept(key, owner, make_send(key, on_busy="reject", idempotency_key="k"))
    assert (await store.accept(key, owner, make_send(key, idempotency_key="k"))).user_message.seq == 2


async def test_an_ended_conversation_takes_no_message_and_a_deleted_one_is_gone(store, key):
    owner = (await store.activate(key, HOST_A)).ownership
    await store.change(key, owner, {"title": "done"}, end=True)
    with pytest.raises(ConversationEnded):
        await store.accept(key, owner, make_send(key))
    await store.delete(key, owner)
    with pytest.raises(NotFound):
        await store.activate(key, HOST_B)


async def test_a_cancellation_that_was_asked_for_first_wins(store, key, database_url):
    owner = (await store.activate(key, HOST_A)).ownership
    send = make_send(key)
    turn = unfinished(await store.accept(key, owner, send), send)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE brain.turns SET cancel_requested = true WHERE id = %s", (turn.turn.id,))
    ended = await store.finish(key, owner, turn, 1, make_reply("whole text"))
    assert (ended.turn.status, ended.message.status) == ("cancelled", "cancelled")


async def test_an_activation_inherits_unfinished_turns_and_recent_messages(store, key):
    owner = (await store.activate(key, HOST_A)).ownership
    one, two = make_send(key, "one"), make_send(key, "two")
    await store.accept(key, owner, one)
    await store.accept(key, owner, two)
    found = await store.activate(key, HOST_B)
    assert [turn.user_message.content for turn in found.unfinished] == ["one", "two"]
    assert [message.content for message in found.recent] == ["one", "two"]


async def test_turns_keep_their_order_though_the_clock_was_put_back(store, key, database_url):
    owner = (await store.activate(key, HOST_A)).ownership
    sent = [make_send(key, f"question {n}") for n in range(4)]
    for number, send in enumerate(sent):
        await store.accept(key, owner, send)
        if number == 1:
            with psycopg.connect(database_url) as connection:  # as a clock says that is ahead for a moment
                connection.execute(
                    "UPDATE brain.turns SET created_at = created_at + interval '2 minutes' WHERE id = %s",
                    (send.turn_id,),
                )
    found = await store.activate(key, HOST_B)
    assert [one.turn.id for one in found.unfinished] == [send.turn_id for send in sent]


async def test_another_tenants_rows_are_invisible_and_unwritable(store, pool, key, database_url):
    owner = (await store.activate(key, HOST_A)).ownership
    await store.accept(key, owner, make_send(key))
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO brain.tenants (id, name) VALUES ('ten_other', 'o') ON CONFLICT DO NOTHING")
    async with reading(pool, "ten_other") as connection:
        for table in ("conversations", "messages", "turns", "idempotency", "usage", "outbox", "api_keys"):
            assert await connection.fetchval(f"SELECT count(*) FROM brain.{table}") == 0
        assert await connection.execute("UPDATE brain.conversations SET title = 'x'") == "UPDATE 0"
    other = type(key)("ten_other", key.conversation)
    with pytest.raises(NotFound):
        await store.activate(other, HOST_A)


async def test_the_services_role_owns_nothing_and_bypasses_nothing(pool):
    async with pool.acquire() as connection:
        row = await connection.fetchrow(
            "SELECT current_user AS name, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user"
        )
        assert tuple(row) == ("service" if servers() else "brain_app", False, False)
        assert await connection.fetchval("SELECT count(*) FROM pg_class WHERE relowner = current_user::regrole") == 0
        forced = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'brain'::regnamespace AND relkind = 'r'"
            " AND NOT (relrowsecurity AND relforcerowsecurity)"
        )
        of_no_tenant = {"access_version", "hosts", "outbox_consumers", "receipt_keys", "signing_keys"}
        assert {row["relname"] for row in forced} == of_no_tenant
        of_tenants = await connection.fetch(
            "SELECT table_name FROM information_schema.columns WHERE table_schema = 'brain'"
            " AND column_name LIKE 'tenant%'"
        )
        assert not of_no_tenant & {row["table_name"] for row in of_tenants}


def test_migrations_go_up_and_down_and_offline(postgres_folder):
    url = make_database(postgres_folder)
    downgrade(url, "base")
    upgrade(url)
    assert "CREATE TABLE brain.turns" in offline_sql()
