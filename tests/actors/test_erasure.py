"""Erasing users and tenants: Postgres, Redis, hot actors, vectors; through crashes; with a receipt that holds."""

import asyncio
import copy

import pytest

from domain.errors import NotFound, Unavailable
from domain.ids import new_id
from domain.tenant import Caller
from serve_app.erasing import Erasing
from serve_app.memory import Memory
from storage.access import key_hash
from storage.erased_journals import forget_journals
from storage.erasure import PostgresErasure
from storage.journal import stream_key
from storage.reader import PostgresReader
from storage.recall import PostgresRecall
from storage.receipts import BadReceipt, Receipts, verify
from storage.redis import open_redis
from storage.spaces import PostgresSpaces
from storage.vectors import open_vectors
from tests.conftest import make_database
from tests.storage.conftest import make_send
from tests.storage.memory_world import Crash, MemoryWorld, Steps, Through

SEED, EARLIER = b"s" * 32, b"e" * 32
KEPT = {"usage", "audit", "erasures", "outbox", "access_changes"}  # tables that still name a tenant: the last two for
# a day and an hour


@pytest.fixture(scope="module")
def database_url(postgres_folder):
    return make_database(postgres_folder)


class Whole:
    """A service in one process: a host, journals, an indexer over LanceDB, and what erases."""

    def __init__(self, world, host, folder, url, redis):
        self.world, self.host, self.redis, self.url = world, host, redis, url
        self.rows = MemoryWorld(url, world.pool)
        self.stores = {}
        self.folder = folder
        self.rows.open_store = self.open_store
        self.memory = Memory(
            PostgresRecall(world.pool), PostgresSpaces(world.pool), self.rows.embedder, self.open_store
        )
        self.store = PostgresErasure(world.pool, (SEED, EARLIER))

    def open_store(self, space):
        if space.name not in self.stores:
            self.stores[space.name] = open_vectors(str(self.folder), space, None)
        return self.stores[space.name]

    def erasing(self, steps=None, **times):
        through = (lambda part: part) if steps is None else (lambda part: Through(part, steps))

        async def forget(tenant, turns):
            return await forget_journals(self.redis, tenant, turns)

        times = {"wait": 0.0, "look": 0.01, **times}
        return Erasing(through(self.store), through(self.host), Receipts((SEED, EARLIER)), forget, self.memory, **times)

    async def erased(self, erasing, ask):
        """Ask until it is done, the index at work in between."""
        for _ in range(50):
            receipt = await ask(erasing)
            if receipt["status"] == "completed":
                return receipt
            await self.rows.settle()
        raise AssertionError("it does not come to an end")

    async def tenant(self):
        return await self.rows.tenant()

    async def conversation(self, tenant, user):
        return await self.rows.conversation(tenant, user)

    async def sql(self, statement, *values):
        return await self.rows.run(statement, *values)

    async def vectors(self, tenant):
        known = await PostgresSpaces(self.world.pool).active()
        return 0 if known is None else await self.open_store(known.space).count(tenant)

    async def rows_of(self, tenant):
        """How many rows of each table that names a tenant are this one's; tables without any are left out."""
        names = await self.sql(
            "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'"
            " WHERE c.relnamespace = 'brain'::regnamespace AND c.relkind = 'r'"
        )
        counts = {}
        for (name,) in names:
            [(counts[name],)] = await self.sql(f"SELECT count(*) FROM brain.{name} WHERE tenant_id = %s", tenant)
        return {name: count for name, count in counts.items() if count}


@pytest.fixture
async def whole(world, tmp_path, database_url, redis_url):
    redis = open_redis(redis_url)
    host = await world.host(lease=60)
    made = Whole(world, host, tmp_path, database_url, redis)
    await made.sql(
        "DELETE FROM brain.outbox_consumers WHERE name <> 'indexer'"
    )  # of those that work here there are none
    yield made
    await made.memory.close()
    for store in made.stores.values():
        await store.close()
    await made.rows.empty()
    await made.rows.close()
    await redis.aclose()


def owner_of(tenant):
    return Caller(tenant, "key_owner", "owner")


async def talk(whole, key, text, wait=True, **fields):
    send = make_send(key, text, wait=wait, **fields)
    await whole.host.send(send)
    return send


async def test_a_user_is_gone_everywhere_and_others_are_not(whole):
    tenant = await whole.tenant()
    mine = [await whole.conversation(tenant, "ann@example.com") for _ in range(2)]
    other = await whole.conversation(tenant, "bob")
    sends = [await talk(whole, key, f"hello from {key.conversation}") for key in (*mine, other)]
    await whole.rows.settle()
    [(reply,)] = await whole.sql(
        "SELECT id FROM brain.messages WHERE tenant_id = %s AND turn_id = %s AND role = 'assistant'",
        tenant,
        sends[0].turn_id,
    )
    await PostgresReader(whole.world.pool).put_feedback(tenant, reply, 1.0, "my words")
    running = await talk(whole, mine[0], "a long one", wait=False, model="mock,n=2000,itl=25")
    assert whole.host.hot == 3 and whole.host.unfinished == 1
    before = await whole.vectors(tenant)

    receipt = await whole.erased(whole.erasing(), lambda one: one.user(owner_of(tenant), "ann@example.com"))

    assert whole.host.hot == 1 and whole.host.unfinished == 0, "the actors have forgotten"
    assert await whole.sql("SELECT id FROM brain.conversations WHERE tenant_id = %s", tenant) == [(other.conversation,)]
    removed = receipt["removed"]
    assert (removed["conversations"], removed["turns"], removed["feedback"]) == (2, 3, 1)
    assert removed["messages"] >= 5 and removed["idempotency_keys"] >= 3
    assert before - await whole.vectors(tenant) == removed["vectors"] >= 4
    assert await whole.vectors(tenant) == 2, "bob's question and its answer"
    for turn in (*(send.turn_id for send in sends[:2]), running.turn_id):
        assert [key async for key in whole.redis.scan_iter(match=f"*{turn}*")] == []
    named = "SELECT count(*) FROM brain.{} WHERE tenant_id = %s AND t::text LIKE %s"
    for table in ("idempotency", "usage", "outbox", "audit", "erasures", "erasure_steps", "messages", "turns"):
        for name in ("ann@example.com", mine[0].conversation, mine[1].conversation, "my words"):
            if table == "outbox":  # deletions stay until they are old: they hold the id alone
                continue
            found = await whole.sql(
                named.format(table).replace("FROM brain." + table, f"FROM brain.{table} t"), tenant, f"%{name}%"
            )
            assert found == [(0,)], (table, name)
    outbox = await whole.sql(
        "SELECT DISTINCT topic FROM brain.outbox WHERE tenant_id = %s AND payload->>'conversation_id' = ANY (%s)",
        tenant,
        [key.conversation for key in mine],
    )
    assert outbox == [("conversation.deleted",)]
    usage = await whole.sql("SELECT user_id FROM brain.usage WHERE tenant_id = %s ORDER BY 1", tenant)
    assert len(usage) == 4 and sum(user == "bob" for (user,) in usage) == 1
    assert receipt["kept"]["usage"]["rows"] == len(usage) - 1
    assert await whole.sql("SELECT action, subject FROM brain.audit WHERE tenant_id = %s", tenant) == [
        ("user.erased", receipt["id"])
    ]
    assert verify(receipt, Receipts((SEED,)).keys)
    with pytest.raises(NotFound):
        await whole.host.send(make_send(mine[0], "again"))


async def test_an_account_goes_with_its_sessions_keys_and_links(whole):
    tenant, user = await whole.tenant(), new_id("usr")
    await whole.sql(
        "INSERT INTO brain.users (tenant_id, id, email, email_key, name) VALUES (%s, %s, 'a@b.c', 'a@b.c', 'Ann')",
        tenant,
        user,
    )
    await whole.sql(
        "INSERT INTO brain.sessions (tenant_id, id, user_id, expires_at) VALUES (%s, 's', %s, 'infinity')", tenant, user
    )
    await whole.sql(
        "INSERT INTO brain.api_keys (tenant_id, id, name, hash, role, user_id) VALUES (%s, 'key_a', 'Ann''s', %s,"
        " 'member', %s)",
        tenant,
        key_hash(user),
        user,
    )
    key = await whole.conversation(tenant, user)
    await talk(whole, key, "hello")
    reader = PostgresReader(whole.world.pool)
    assert await reader.find_api_key(user) is not None
    [(version,)] = await whole.sql("SELECT version FROM brain.access_version")

    receipt = await whole.erased(whole.erasing(), lambda one: one.user(owner_of(tenant), user))

    removed = receipt["removed"]
    assert (removed["users"], removed["sessions"], removed["api_keys"], removed["conversations"]) == (1, 1, 1, 1)
    assert await reader.find_api_key(user) is None
    told = {(change.kind, change.subject) for change in await reader.access_since(version)}
    assert told >= {("key", "key_a"), ("user", user)}
    again = await whole.erasing().user(owner_of(tenant), user)
    assert again == receipt, "asking once more shows the same receipt"
    with pytest.raises(NotFound):
        await whole.erasing().user(owner_of(tenant), new_id("usr"))
    with pytest.raises(NotFound):
        await whole.erasing().user(owner_of(await whole.tenant()), user)


async def test_a_tenant_leaves_only_what_is_said_to_stay(whole):
    tenant, other = await whole.tenant(), await whole.tenant()
    for place in (tenant, other):
        for user in ("ann", "bob"):
            await talk(whole, await whole.conversation(place, user), "hello there")
        await whole.sql("INSERT INTO brain.roles (tenant_id, name, permissions) VALUES (%s, 'x', '{}')", place)
        await whole.sql("INSERT INTO brain.reservations VALUES (%s, 'turn_r', 0.5, 'infinity')", place)
    await whole.rows.settle()
    kept = await whole.rows_of(other)
    assert await whole.vectors(tenant) == await whole.vectors(other) == 4

    receipt = await whole.erased(whole.erasing(), lambda one: one.tenant(owner_of(tenant)))

    assert set(await whole.rows_of(tenant)) <= KEPT
    links = "SELECT count(*) FROM brain.usage WHERE tenant_id = %s AND concat(user_id, caller, conversation_id) <> ''"
    assert await whole.sql(links, tenant) == [(0,)]
    topics = await whole.sql("SELECT DISTINCT topic FROM brain.outbox WHERE tenant_id = %s", tenant)
    assert {topic for (topic,) in topics} <= {"conversation.deleted", "tenant.deleted"}
    assert await whole.sql("SELECT id FROM brain.tenants WHERE id = %s", tenant) == []
    removed = receipt["removed"]
    assert (removed["conversations"], removed["vectors"], removed["roles"], removed["tenants"]) == (2, 4, 1, 1)
    assert await whole.vectors(tenant) == 0
    assert await whole.rows_of(other) == kept and await whole.vectors(other) == 4


async def test_the_operators_own_tenant_stays(whole):
    tenant = await whole.tenant()
    await whole.sql("UPDATE brain.tenants SET settings = '{\"operator\": true}' WHERE id = %s", tenant)
    with pytest.raises(NotFound, match="operator's own"):
        await whole.erasing().tenant(owner_of(tenant))
    assert await whole.sql("SELECT id FROM brain.tenants WHERE id = %s", tenant) == [(tenant,)]


async def test_the_receipt_waits_for_the_index_and_says_what_is_on_its_way(whole):
    tenant = await whole.tenant()
    for _ in range(3):
        await talk(whole, await whole.conversation(tenant, "ann"), "hello")
    await whole.rows.settle()
    first = await whole.erasing().user(owner_of(tenant), "ann")
    assert (first["status"], first["pending"], first["completed_at"]) == ("in_progress", {"vectors": 3}, None)
    assert first["removed"]["conversations"] == 3
    waiting = asyncio.create_task(whole.erasing(wait=30.0).user(owner_of(tenant), "ann"))
    await whole.rows.settle()
    last = await waiting
    assert (last["status"], last["pending"], last["id"]) == ("completed", {}, first["id"])
    assert last["removed"]["vectors"] == 6 and await whole.vectors(tenant) == 0


async def test_vectors_that_stayed_are_not_called_removed(whole):
    tenant = await whole.tenant()
    await talk(whole, await whole.conversation(tenant, "ann"), "hello")
    await whole.rows.settle()
    await whole.erasing().user(owner_of(tenant), "ann")
    await whole.sql("UPDATE brain.outbox SET confirmed = '{indexer}' WHERE tenant_id = %s", tenant)  # as set aside
    receipt = await whole.erasing().user(owner_of(tenant), "ann")
    assert (receipt["status"], receipt["pending"]) == ("in_progress", {"vectors": 1})


async def test_an_index_that_is_away_costs_the_figure_and_holds_the_end_back(whole, monkeypatch):
    async def away(old=0.0):
        raise Unavailable("the index is away")

    tenant = await whole.tenant()
    await talk(whole, await whole.conversation(tenant, "ann"), "hello")
    await whole.rows.settle()
    await talk(whole, await whole.conversation(tenant, "ann"), "hello")
    await whole.erasing(work=-1.0).user(owner_of(tenant), "ann")  # counts, while the index answers
    monkeypatch.setattr(whole.memory, "_store", away)
    await whole.erasing().user(owner_of(tenant), "ann")
    await whole.rows.settle()
    receipt = await whole.erasing().user(owner_of(tenant), "ann")
    assert receipt["pending"] == {"vectors": "the index does not answer"}


async def test_a_call_is_bounded_and_the_next_one_goes_on(whole, monkeypatch):
    monkeypatch.setattr("serve_app.erasing.TOGETHER", 2)
    tenant = await whole.tenant()
    for _ in range(5):
        await whole.conversation(tenant, "ann")
    done = []
    for _ in range(3):
        receipt = await whole.erasing(work=-1.0).user(owner_of(tenant), "ann")
        done.append(receipt["removed"]["conversations"])
        assert receipt["pending"] == {"conversations": "not all are removed yet: ask again"}
    assert done == [2, 4, 5]
    receipt = await whole.erased(whole.erasing(), lambda one: one.user(owner_of(tenant), "ann"))
    assert receipt["removed"]["conversations"] == 5


@pytest.mark.parametrize("kind", ["user", "tenant"])
async def test_a_crash_anywhere_is_made_good_by_asking_again(whole, kind):
    async def asked(erasing, tenant):
        who = owner_of(tenant)
        return await (erasing.user(who, "ann") if kind == "user" else erasing.tenant(who))

    steps, crash_at, crashes = Steps(), 1, 0
    expected = None
    while True:
        tenant = await whole.tenant()
        for _ in range(2):
            await talk(whole, await whole.conversation(tenant, "ann"), "hello")
        await whole.rows.settle()
        if expected is not None:
            steps = Steps()
            steps.crash_at = crash_at
            crash_at += 1
        try:
            await asked(whole.erasing(steps), tenant)
            crashed = False
        except Crash:
            crashed = True
            crashes += 1
        receipt = await whole.erased(whole.erasing(), lambda one, tenant=tenant: asked(one, tenant))
        counted = {name: n for name, n in receipt["removed"].items() if name not in ("journals", "events")}
        assert await whole.vectors(tenant) == 0
        if expected is None:
            expected = counted
            continue
        assert counted == expected, steps.names[-1]
        left = await whole.sql("SELECT count(*) FROM brain.conversations WHERE tenant_id = %s", tenant)
        assert left == [(0,)], steps.names[-1]
        if not crashed:
            break
    assert crashes > 15


async def test_two_at_once_count_everything_once(whole):
    tenant = await whole.tenant()
    for _ in range(4):
        await talk(whole, await whole.conversation(tenant, "ann"), "hello")
    await whole.rows.settle()
    await asyncio.gather(*(whole.erasing().user(owner_of(tenant), "ann") for _ in range(2)))
    receipt = await whole.erased(whole.erasing(), lambda one: one.user(owner_of(tenant), "ann"))
    removed = receipt["removed"]
    assert (removed["conversations"], removed["turns"], removed["messages"], removed["vectors"]) == (4, 4, 8, 8)


def test_a_receipt_that_was_changed_is_found_out():
    receipts = Receipts((SEED, EARLIER))
    receipt = receipts.signed({"object": "erasure_receipt", "id": "r", "removed": {"turns": 3}, "ünknown": None})
    assert verify(receipt, receipts.keys) == receipts.keys[0]["kid"]
    for path, value in ((("id",), "s"), (("removed", "turns"), 4), (("removed", "vectors"), 0), (("more",), 1)):
        changed = copy.deepcopy(receipt)
        place = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        with pytest.raises(BadReceipt, match="changed"):
            verify(changed, receipts.keys)
    for signature in (None, "", "x", "a..b", receipt["signature"][:-8], receipt["signature"].replace("..", ".x.")):
        with pytest.raises(BadReceipt):
            verify({**receipt, "signature": signature}, receipts.keys)
    with pytest.raises(BadReceipt, match="not among"):
        verify(receipt, receipts.keys[1:])
    forged = {**receipts.keys[1], "kid": receipts.keys[0]["kid"]}
    with pytest.raises(BadReceipt, match="changed"):
        verify(receipt, [forged])


async def test_receipts_of_an_earlier_master_key_can_still_be_checked(whole):
    tenant = await whole.tenant()
    await whole.conversation(tenant, "ann")
    receipt = await whole.erased(whole.erasing(), lambda one: one.user(owner_of(tenant), "ann"))

    async def forget(tenant, turns):
        return 0

    later = Erasing(PostgresErasure(whole.world.pool, (b"n" * 32,)), whole.host, Receipts((b"n" * 32,)), forget)
    assert verify(receipt, await later.keys())


async def test_journals_of_other_turns_stay(whole):
    ten, turns = "ten_x", [new_id("turn"), new_id("turn")]
    for turn in turns:
        for attempt in (1, 2):
            key = stream_key(ten, turn, attempt)
            await whole.redis.xadd(key, {"t": "x"})
            await whole.redis.set(key + ":claim", "c")
            await whole.redis.set(key + ":owner", "1")
    assert await forget_journals(whole.redis, ten, [(turns[0], 2)]) == 2
    left = {key.decode() async for key in whole.redis.scan_iter(match=f"brain:{ten}:*")}
    assert len(left) == 6 and all(turns[1] in key for key in left)
    assert await forget_journals(whole.redis, ten, [(turns[0], 2)]) == 0


async def test_with_redis_away_everything_else_is_erased(whole):
    async def away(tenant, turns):
        raise ConnectionError("Redis is away")

    tenant = await whole.tenant()
    await talk(whole, await whole.conversation(tenant, "ann"), "hello")
    erasing = Erasing(whole.store, whole.host, Receipts((SEED,)), away, whole.memory, wait=0.0)
    receipt = await whole.erased(erasing, lambda one: one.user(owner_of(tenant), "ann"))
    assert receipt["removed"]["journals"] == 0 and receipt["removed"]["messages"] == 2


async def test_a_host_that_does_not_answer_leaves_the_rest_for_the_next_time(whole, monkeypatch):
    tenant = await whole.tenant()
    for _ in range(3):
        await talk(whole, await whole.conversation(tenant, "ann"), "hello")
    delete, calls = whole.host.delete, []

    async def sometimes(key):
        calls.append(key)
        if len(calls) == 2:
            raise Unavailable("the host is away")
        await delete(key)

    monkeypatch.setattr(whole.host, "delete", sometimes)
    with pytest.raises(Unavailable):
        await whole.erasing().user(owner_of(tenant), "ann")
    receipt = await whole.erased(whole.erasing(), lambda one: one.user(owner_of(tenant), "ann"))
    assert receipt["removed"]["conversations"] == 3
