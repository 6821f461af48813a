"""The ledger on a real database: what is held, what is charged, and who is told."""

import asyncio
import uuid
from decimal import Decimal

import psycopg
import pytest

from domain.commands import UnfinishedTurn
from domain.errors import BudgetExceeded, ConversationEnded, NotFound
from domain.ids import new_id
from domain.ledger import Charge, Version
from domain.message import Usage
from domain.turn import TurnStatus
from storage.conversations import PostgresConversations
from storage.ledger import PostgresLedger
from storage.migrations import downgrade, upgrade
from storage.postgres import call, reading
from storage.reader import PostgresReader
from tests.conftest import make_database
from tests.servers.given import open_pool
from tests.storage.conftest import make_conversation, make_reply, make_send

HOST = str(uuid.uuid4())
CENT = Decimal("0.01")


def charge(number=1, cost="0.01", **fields) -> Charge:
    usage = Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15)
    return Charge(number, "m", "p", fields.pop("why", "first"), usage, cost and Decimal(cost), **fields)


def reply_of(*calls, text="answer", status="completed", versions=()):
    plain = make_reply(text, status)
    return type(plain)(
        **{name: getattr(plain, name) for name in plain.__slots__} | {"calls": calls, "versions": versions}
    )


def unfinished(accepted, send):
    return UnfinishedTurn(accepted.turn, accepted.user_message, send.model, {}, True, True)


@pytest.fixture
def budgeted(database_url):
    """A tenant of its own with a budget."""

    def make(url=database_url, **budget):
        name = f"ten_{uuid.uuid4().hex}"
        with psycopg.connect(url) as connection:
            connection.execute("INSERT INTO brain.tenants (id, name) VALUES (%s, 'b')", (name,))
            set_budget(url, name, connection=connection, **budget)
        return name

    return make


def set_budget(url, tenant, connection=None, **budget):
    settings = psycopg.types.json.Jsonb({"budget": budget or None})
    statement = (
        "INSERT INTO brain.model_settings (tenant_id, settings) VALUES (%s, %s)"
        " ON CONFLICT (tenant_id) DO UPDATE SET settings = excluded.settings"
    )
    if connection is not None:
        connection.execute(statement, (tenant, settings))
        return
    with psycopg.connect(url) as own:
        own.execute(statement, (tenant, settings))


def fetch(url, sql, *values):
    with psycopg.connect(url) as connection:
        return connection.execute(sql, values).fetchall()


def state(url, tenant):
    return fetch(url, "SELECT spent_usd, reserved_usd FROM brain.budgets WHERE tenant_id = %s", tenant)[0]


def told(url, tenant):
    sql = "SELECT topic FROM brain.outbox WHERE tenant_id = %s AND topic LIKE 'budget.%%' ORDER BY id"
    return [topic for (topic,) in fetch(url, sql, tenant)]


async def open_turn(store, key, owner=None, **fields):
    owner = owner or (await store.activate(key, HOST)).ownership
    send = make_send(key, **fields)
    return owner, unfinished(await store.accept(key, owner, send), send)


async def test_parallel_turns_cannot_overspend(database_url, budgeted):
    tenant = budgeted(hard_usd=0.10)
    pool = await open_pool(database_url, 12, 12)
    store = PostgresConversations(pool)
    keys = [make_conversation(database_url, tenant) for _ in range(40)]
    owners = [(await store.activate(key, HOST)).ownership for key in keys]
    sends = [make_send(key, reserve=CENT) for key in keys]
    found = await asyncio.gather(
        *(store.accept(*asked) for asked in zip(keys, owners, sends, strict=True)), return_exceptions=True
    )
    accepted = [one for one in found if not isinstance(one, Exception)]
    refused = [one for one in found if isinstance(one, Exception)]
    assert len(accepted) == 10 and all(type(one) is BudgetExceeded for one in refused)
    assert state(database_url, tenant) == (0, Decimal("0.10"))
    assert told(database_url, tenant) == ["budget.hard_exceeded"]
    # What was refused was not written, and its key is free again.
    assert fetch(database_url, "SELECT count(*) FROM brain.messages WHERE tenant_id = %s", tenant) == [(10,)]
    assert fetch(database_url, "SELECT count(*) FROM brain.idempotency WHERE tenant_id = %s", tenant) == [(10,)]
    for key, owner, send, turn in zip(keys, owners, sends, found, strict=True):
        if not isinstance(turn, Exception):
            await store.finish(key, owner, unfinished(turn, send), 1, reply_of(charge(cost="0.004")))
    assert state(database_url, tenant) == (Decimal("0.040"), 0)
    again = next(n for n, one in enumerate(found) if isinstance(one, Exception))
    assert not (await store.accept(keys[again], owners[again], sends[again])).replayed
    await pool.close()


async def test_a_turn_is_charged_call_by_call_with_its_end(store, database_url, budgeted):
    tenant = budgeted(hard_usd=1)
    key = make_conversation(database_url, tenant)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE brain.conversations SET user_id = 'ada' WHERE id = %s", (key.conversation,))
    owner, turn = await open_turn(store, key, reserve=Decimal("0.5"))
    lost = charge(1, "0.0000001", estimated=True)
    await store.next_attempt(key, owner, turn.turn.id, 2, [lost])
    await store.next_attempt(key, owner, turn.turn.id, 2, [lost])  # after a lost connection it is sent again
    calls = (charge(1, "0.1", reply=False, estimated=True), charge(2, "0.2", why="retry"), charge(3, None, why="side"))
    reply = reply_of(*calls)
    await store.finish(key, owner, turn, 2, reply)
    await store.finish(key, owner, turn, 2, reply)
    rows = fetch(
        database_url,
        "SELECT attempt, call, user_id, caller, why, basis, reply, cost_usd, prompt_tokens FROM brain.usage"
        " WHERE tenant_id = %s ORDER BY attempt, call",
        tenant,
    )
    assert rows == [
        (1, 1, "ada", "key_1", "first", "estimated", False, Decimal("0.0000001"), 10),
        (2, 1, "ada", "key_1", "first", "estimated", False, Decimal("0.1"), 10),
        (2, 2, "ada", "key_1", "retry", "reported", True, Decimal("0.2"), 10),
        (2, 3, "ada", "key_1", "side", "reported", True, None, 10),
    ]
    assert state(database_url, tenant) == (Decimal("0.3000001"), 0)


@pytest.mark.parametrize("status", ["completed", "cancelled", "failed"])
async def test_every_end_gives_back_what_was_held(store, database_url, budgeted, status):
    tenant = budgeted(hard_usd=1)
    key = make_conversation(database_url, tenant)
    owner, turn = await open_turn(store, key, reserve=Decimal("0.9"))
    with pytest.raises(BudgetExceeded):
        await open_turn(store, key, owner, reserve=Decimal("0.2"))
    await store.finish(key, owner, turn, 1, reply_of(text="" if status != "completed" else "x", status=status))
    assert state(database_url, tenant) == (0, 0)
    await open_turn(store, key, owner, reserve=Decimal("0.2"))
    await store.delete(key, owner)
    assert state(database_url, tenant) == (0, 0)


async def test_an_ended_conversation_is_told_so_and_holds_nothing(store, database_url, budgeted):
    tenant = budgeted(hard_usd=1)
    key = make_conversation(database_url, tenant)
    owner = (await store.activate(key, HOST)).ownership
    await store.change(key, owner, {}, end=True)
    for usd in ("0.1", "5"):
        with pytest.raises(ConversationEnded):
            await store.accept(key, owner, make_send(key, reserve=Decimal(usd)))
    assert fetch(database_url, "SELECT * FROM brain.budgets WHERE tenant_id = %s AND reserved_usd > 0", tenant) == []


async def test_without_a_budget_no_budget_is_touched(store, database_url, tenant):
    key = make_conversation(database_url, tenant)
    owner, turn = await open_turn(store, key, reserve=CENT)
    await store.finish(key, owner, turn, 1, reply_of(charge()))
    assert fetch(database_url, "SELECT * FROM brain.budgets WHERE tenant_id = %s", tenant) == []


async def test_what_costs_nothing_passes_a_spent_budget(store, database_url, budgeted):
    tenant = budgeted(hard_usd=0)
    key = make_conversation(database_url, tenant)
    owner, turn = await open_turn(store, key, reserve=Decimal(0))
    await store.finish(key, owner, turn, 1, reply_of(charge(cost="0")))
    with pytest.raises(BudgetExceeded):
        await open_turn(store, key, owner, reserve=Decimal("0.000001"))


async def test_the_soft_limit_is_told_once_a_period_and_limit(store, database_url, budgeted):
    tenant = budgeted(soft_usd=0.015, period="day")
    key = make_conversation(database_url, tenant)
    owner = None
    seen = []
    for _ in range(4):
        owner, turn = await open_turn(store, key, owner, reserve=CENT)
        await store.finish(key, owner, turn, 1, reply_of(charge()))
        seen.append(len(told(database_url, tenant)))
    assert seen == [0, 1, 1, 1]
    set_budget(database_url, tenant, soft_usd=0.05, period="day")
    owner, turn = await open_turn(store, key, owner, reserve=CENT)
    await store.finish(key, owner, turn, 1, reply_of(charge()))
    assert told(database_url, tenant) == ["budget.soft_exceeded"] * 2


async def test_a_new_period_begins_with_what_the_ledger_holds_of_it(store, database_url, budgeted):
    tenant = budgeted(hard_usd=0.03, period="day")
    key = make_conversation(database_url, tenant)
    owner, turn = await open_turn(store, key, reserve=CENT)
    await store.finish(key, owner, turn, 1, reply_of(charge(cost="0.03")))
    with pytest.raises(BudgetExceeded):
        await open_turn(store, key, owner, reserve=CENT)
    with psycopg.connect(database_url) as connection:  # as if all of that had been yesterday
        connection.execute(
            "UPDATE brain.usage SET created_at = created_at - interval '1 day' WHERE tenant_id = %s", (tenant,)
        )
        connection.execute("UPDATE brain.budgets SET starts = starts - 1 WHERE tenant_id = %s", (tenant,))
    owner, turn = await open_turn(store, key, owner, reserve=CENT)
    assert state(database_url, tenant) == (0, CENT)
    with psycopg.connect(database_url) as connection:  # and the next one begins while the turn runs
        connection.execute("UPDATE brain.budgets SET starts = starts - 1 WHERE tenant_id = %s", (tenant,))
    await store.finish(key, owner, turn, 1, reply_of(charge(cost="0.02")))
    assert state(database_url, tenant) == (Decimal("0.02"), 0)
    set_budget(database_url, tenant)  # none any more: what is spent meanwhile counts once there is one again
    owner, turn = await open_turn(store, key, owner, reserve=CENT)
    await store.finish(key, owner, turn, 1, reply_of(charge(cost="0.005")))
    set_budget(database_url, tenant, hard_usd=0.03, period="day")
    owner, turn = await open_turn(store, key, owner, reserve=Decimal("0.001"))
    assert state(database_url, tenant) == (Decimal("0.025"), Decimal("0.001"))
    with pytest.raises(BudgetExceeded):
        await open_turn(store, key, owner, reserve=CENT)


async def test_a_completion_that_nobody_keeps_is_held_settled_and_expires(pool, database_url, budgeted):
    tenant, ledger = budgeted(hard_usd=0.03), PostgresLedger(pool)
    await ledger.reserve(tenant, "turn_1", CENT, 60)
    await ledger.reserve(tenant, "turn_1", CENT, 60)
    await ledger.reserve(tenant, "turn_2", CENT, 60)
    assert state(database_url, tenant) == (0, 2 * CENT)
    with pytest.raises(BudgetExceeded):
        await ledger.reserve(tenant, "turn_3", 2 * CENT, 60)
    for _ in range(2):
        await ledger.settle(tenant, "turn_1", [charge(cost="0.004")], caller="key_9")
    assert state(database_url, tenant) == (Decimal("0.004"), CENT)
    assert fetch(
        database_url, "SELECT turn_id, conversation_id, caller FROM brain.usage WHERE tenant_id = %s", tenant
    ) == [("turn_1", None, "key_9")]
    expire = "UPDATE brain.reservations SET expires_at = now() - interval '1 s' WHERE tenant_id = %s"
    with psycopg.connect(database_url) as connection:
        connection.execute(expire, (tenant,))
    await ledger.reserve(tenant, "turn_3", 2 * CENT, 60)  # the next one finds what the dead one held
    assert state(database_url, tenant) == (Decimal("0.004"), 2 * CENT)
    with psycopg.connect(database_url) as connection:
        connection.execute(expire, (tenant,))
    assert (await call(pool, "SELECT brain.expire_reservations()"))[0] >= 1
    assert state(database_url, tenant) == (Decimal("0.004"), 0)
    await ledger.settle(tenant, "turn_3", [charge()])  # it was only slow
    assert state(database_url, tenant) == (Decimal("0.014"), 0)


async def test_reservations_and_settlements_at_once_end_in_the_exact_sum(database_url, budgeted):
    tenant = budgeted(hard_usd=100)
    pool = await open_pool(database_url, 10, 10)
    ledger = PostgresLedger(pool)

    async def one(number: int) -> None:
        await ledger.reserve(tenant, f"turn_{number}", CENT, -1 if number % 3 == 0 else 60)
        await ledger.settle(tenant, f"turn_{number}", [charge(cost="0.003")])

    await asyncio.gather(*map(one, range(120)), *(call(pool, "SELECT brain.expire_reservations()") for _ in range(20)))
    assert state(database_url, tenant) == (Decimal("0.360"), 0)
    await pool.close()


async def ask_and_answer(store, key, owner, text, answer, **fields):
    send = make_send(key, text, **fields)
    turn = unfinished(await store.accept(key, owner, send), send)
    return await store.finish(key, owner, turn, 1, reply_of(text=answer))


async def test_an_answer_made_anew_takes_the_old_ones_place(store, pool, key):
    owner = (await store.activate(key, HOST)).ownership
    first = await ask_and_answer(store, key, owner, "one", "old")
    await ask_and_answer(store, key, owner, "two", "other")
    send = make_send(key, "", regenerates=first.message.id)
    accepted = await store.accept(key, owner, send)
    assert accepted.user_message == first.user_message and not accepted.replayed
    assert (await store.replayed(key, send)).turn.id == send.turn_id
    found = await store.activate(key, HOST)
    inherited = found.unfinished[0]
    assert (inherited.user_message.id, inherited.regenerates) == (first.user_message.id, first.message.id)
    assert inherited.order == 1
    ended = await store.finish(key, found.ownership, unfinished(accepted, send), 1, reply_of(text="new"))
    assert ended.message.seq == 5
    found = await store.activate(key, HOST)
    assert [(m.order, m.seq, m.content) for m in found.recent] == [
        (1, 1, "one"),
        (3, 3, "two"),
        (3, 4, "other"),
        (1, 5, "new"),
    ]
    reader = PostgresReader(pool)
    assert (await reader.message(key.tenant, first.message.id))[1].content == "old"
    stored = await reader.stored_turn(key.tenant, send.turn_id)
    assert (stored.user_message.content, stored.message.content) == ("one", "new")
    old = await reader.stored_turn(key.tenant, first.turn.id)
    assert (old.user_message.content, old.message.content) == ("one", "old")


async def test_an_answer_that_failed_to_be_made_anew_leaves_the_old_one_in_its_place(store, key):
    owner = (await store.activate(key, HOST)).ownership
    first = await ask_and_answer(store, key, owner, "one", "old")
    send = make_send(key, "", regenerates=first.user_message.id)
    turn = unfinished(await store.accept(key, owner, send), send)
    await store.finish(key, owner, turn, 1, reply_of(text="part", status="failed"))
    assert [m.content for m in (await store.activate(key, HOST)).recent] == ["one", "old"]


async def test_only_a_message_of_this_conversation_is_answered_anew(store, key, tenant, database_url):
    owner = (await store.activate(key, HOST)).ownership
    other = make_conversation(database_url, tenant)
    elsewhere = await ask_and_answer(store, other, (await store.activate(other, HOST)).ownership, "a", "b")
    for message in (elsewhere.message.id, new_id("msg")):
        with pytest.raises(NotFound):
            await store.accept(key, owner, make_send(key, "", regenerates=message, idempotency_key=key.conversation))
    assert not (await store.accept(key, owner, make_send(key, idempotency_key=key.conversation))).replayed


async def test_versions_are_kept_beside_the_reply(store, pool, key):
    owner = (await store.activate(key, HOST)).ownership
    send = make_send(key, models=("a", "b"), keep="all")
    turn = unfinished(await store.accept(key, owner, send), send)
    inherited = (await store.activate(key, HOST)).unfinished[0]
    assert (inherited.models, inherited.keep) == (("a", "b"), "all")
    owner = (await store.activate(key, HOST)).ownership
    usage = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
    kept = (Version(new_id("msg"), "b says", "b", usage, 0.5), Version(new_id("msg"), "c says", "c"))
    reply = reply_of(text="a says", versions=kept)
    ended = await store.finish(key, owner, turn, 1, reply)
    again = await store.finish(key, owner, turn, 1, reply)
    assert again == ended and ended.message.seq == 2
    reader = PostgresReader(pool)
    assert [(await reader.message(key.tenant, one.message_id))[1].seq for one in kept] == [3, 4]
    version = (await reader.message(key.tenant, kept[0].message_id))[1]
    assert (version.usage, version.cost_usd, version.model) == (usage, 0.5, "b")
    assert (await reader.conversation(key.tenant, key.conversation)).message_count == 4
    assert [m.content for m in (await store.activate(key, HOST)).recent] == ["hello", "a says"]
    assert (await store.accept(key, (await store.activate(key, HOST)).ownership, make_send(key))).user_message.seq == 5


async def test_unfinished_turns_are_inherited_in_the_order_of_their_acceptance(store, key):
    owner = (await store.activate(key, HOST)).ownership
    first = await ask_and_answer(store, key, owner, "one", "old")
    sends = [make_send(key, "two"), make_send(key, "", regenerates=first.message.id), make_send(key, "three")]
    for send in sends:
        await store.accept(key, owner, send)
    found = await store.activate(key, HOST)
    assert [turn.turn.id for turn in found.unfinished] == [send.turn_id for send in sends]
    assert [turn.turn.status for turn in found.unfinished] == [TurnStatus.RUNNING, TurnStatus.QUEUED, TurnStatus.QUEUED]


async def test_code_of_the_first_revision_runs_beside_it(pool, key, tenant):
    owner = await call(pool, "SELECT brain.activate($1, $2, $3, $4, 10)", tenant, key.conversation, HOST, HOST)
    epoch = owner[0]["conversation"]["epoch"]
    turn, usage = new_id("turn"), {"prompt_tokens": 3, "cached_tokens": 1, "completion_tokens": 2}
    accept = f"SELECT * FROM brain.accept_turn({', '.join(f'${n}' for n in range(1, 17))})"
    texts = (new_id("msg"), "hello", "auto")
    accepted = await call(
        pool,
        accept,
        tenant,
        key.conversation,
        epoch,
        HOST,
        "key_1",
        turn,
        b"h",
        turn,
        *texts,
        {},
        {},
        True,
        True,
        False,
    )
    assert accepted["outcome"] == "accepted"
    attempt = "SELECT brain.next_attempt($1, $2, $3, $4, $5, $6)"
    await call(pool, attempt, tenant, key.conversation, epoch, HOST, turn, 2)
    finish = f"SELECT * FROM brain.finish_turn({', '.join(f'${n}' for n in range(1, 21))})"
    said = ("completed", new_id("msg"), "answer", "m", "p", None, usage, 0.25, None, None, {}, 1, True, [])
    ended = await call(pool, finish, tenant, key.conversation, epoch, HOST, turn, 2, *said)
    assert (ended["status"], ended["seq"], ended["again"]) == ("completed", 2, False)
    async with reading(pool, tenant) as connection:
        row = await connection.fetchrow(
            "SELECT call, model, cost_usd, basis, cached_tokens FROM brain.usage WHERE turn_id = $1", turn
        )
    assert tuple(row) == (1, "m", Decimal("0.25"), "estimated", 1)


async def test_the_ledger_goes_back_and_forth_with_its_rows(postgres_folder, budgeted):
    url = make_database(postgres_folder)
    tenant = budgeted(url, hard_usd=1)
    key = make_conversation(url, tenant)
    pool = await open_pool(url, 2)
    store = PostgresConversations(pool)
    owner, turn = await open_turn(store, key, reserve=CENT)
    ended = await store.finish(
        key,
        owner,
        turn,
        1,
        reply_of(charge(1, reply=False), charge(2), versions=(Version(new_id("msg"), "beside", "m"),)),
    )
    await ask_and_answer(store, key, owner, "", "anew", regenerates=ended.message.id)
    await PostgresLedger(pool).settle(tenant, "turn_unkept", [charge()])
    await pool.close()
    downgrade(url, "0001")
    counted = 'SELECT conversation_id, prompt_tokens, cost_usd FROM brain.usage ORDER BY turn_id COLLATE "C"'
    assert sorted(fetch(url, counted)) == sorted([(key.conversation, 20, 0.02), ("", 10, 0.01)])
    assert fetch(url, "SELECT count(*), count(DISTINCT turn_id) FROM brain.messages WHERE role = 'assistant'") == [
        (3, 3)
    ]
    upgrade(url)
    assert fetch(url, "SELECT sum(cost_usd) FROM brain.usage") == [(Decimal("0.03"),)]
    pool = await open_pool(url, 2)
    store = PostgresConversations(pool)
    owner, turn = await open_turn(store, key)
    await store.finish(key, owner, turn, 1, reply_of(charge()))
    assert fetch(url, "SELECT sum(cost_usd) FROM brain.usage") == [(Decimal("0.04"),)]
    await pool.close()


async def test_a_shadow_whose_turn_was_deleted_is_charged_for(store, database_url, budgeted):
    tenant = budgeted(hard_usd=1)
    key = make_conversation(database_url, tenant)
    owner, turn = await open_turn(store, key, reserve=CENT)
    await store.finish(key, owner, turn, 1, reply_of(charge()))
    await store.delete(key, owner)
    with pytest.raises(NotFound):
        await store.shadow(key, turn.turn.id, {}, [charge(2, "0.03", why="shadow", reply=False)])
    assert state(database_url, tenant) == (Decimal("0.04"), 0)
