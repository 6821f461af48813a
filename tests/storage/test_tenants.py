"""Tenants, their keys and roles in Postgres: nobody sees another's, deletion leaves nothing, retention deletes."""

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import psycopg
import pytest

from domain.errors import NotFound, QuotaExceeded, Unavailable
from domain.ids import new_id
from domain.permissions import ROLES
from domain.tenant import Caller
from domain.tenant_settings import Quotas, TenantSettings
from serve_app.access_watch import AccessWatch, forgets_tenants
from serve_app.retention import Retention
from storage.access import API_KEYS
from storage.audit import AuditFilter, PostgresAudit, record
from storage.catalog import CachedSettings
from storage.keys import Fresh, KeyEnded, NewKey, Once, PostgresKeys
from storage.migrations import downgrade, upgrade
from storage.pages import PageQuery
from storage.platform import PostgresPlatform
from storage.postgres import reading
from storage.quotas import check_users
from storage.reader import PostgresReader
from storage.retention import delete_expired, expired_conversations
from storage.roles import NewRole, PostgresRoles, RoleInUse
from storage.sealing import MasterKeys
from storage.tenants import NewTenant, PostgresTenants, delete_tenant
from tests.conftest import make_database
from tests.servers.given import open_pool
from tests.storage.conftest import make_conversation, make_reply, make_send
from tests.storage.test_ownership import unfinished

MASTER = MasterKeys((b"m" * 32,))


@pytest.fixture
def operator(tenant):
    return Caller(tenant, "key_operator", "operator", ROLES["operator"])


@pytest.fixture
def tenants(pool):
    return PostgresTenants(pool)


@pytest.fixture
def keys(pool):
    return PostgresKeys(pool, MASTER)


@pytest.fixture
def roles(pool):
    return PostgresRoles(pool)


async def make(tenants, operator, **settings):
    """A new tenant, and the operator acting for it."""
    new = NewTenant(new_id("ten"), "acme", TenantSettings.model_validate(settings))
    await tenants.create(operator, new)
    return replace(operator, tenant=new.id)


async def test_no_tenant_sees_or_ends_what_is_anothers(database_url, operator):
    """Many tenants interleaved on two connections."""
    small = await open_pool(database_url, 2)
    try:
        keys, roles, tenants = PostgresKeys(small, MASTER), PostgresRoles(small), PostgresTenants(small)
        audit = PostgresAudit(small)
        callers = [await make(tenants, operator, system_prompt=f"p{n}") for n in range(20)]
        made = {}
        for caller in callers:
            made[caller.tenant] = (await keys.create(caller, NewKey(caller.tenant, "member")))[0]
            await roles.create(caller, NewRole("own", caller.tenant, ["models:read"]))

        async def look(caller):
            page = await keys.page(caller.tenant, PageQuery())
            assert [one.name for one in page.data] == [caller.tenant]
            role = await roles.one(caller.tenant, "own")
            assert role.description == caller.tenant
            log = await audit.page(caller.tenant, PageQuery(), AuditFilter())
            assert {one.tenant_id for one in log.data} == {caller.tenant}
            assert (await tenants.one(caller.tenant)).id == caller.tenant
            other = made[random.Random(caller.tenant).choice([one for one in made if one != caller.tenant])]
            for refused in (keys.one(caller.tenant, other.id), keys.revoke(caller, other.id)):
                with pytest.raises(NotFound):
                    await refused
            with pytest.raises(NotFound):
                await keys.rotate(caller, other.id, 0, Fresh(), Once())

        await asyncio.gather(*(look(caller) for caller in callers for _ in range(5)))
        for caller in callers:
            assert (await keys.one(caller.tenant, made[caller.tenant].id)).status == "active"
    finally:
        await small.close()


async def test_no_function_with_more_rights_acts_for_another_tenant(pool, tenants, keys, operator):
    one, other = await make(tenants, operator), await make(tenants, operator)
    key = (await keys.create(other, NewKey("k", "member")))[0]
    async with reading(pool, one.tenant) as lent:
        assert not await lent.fetchval("SELECT brain.end_key($1, $2, NULL)", other.tenant, key.id)
        assert not await lent.fetchval("SELECT brain.replace_key($1, $2, 'key_x', NULL)", other.tenant, key.id)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with lent.transaction():
                await lent.fetchval("SELECT brain.clear_tenant($1, 10)", other.tenant)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with lent.transaction():
                await record(lent, other, "forged")
    assert (await keys.one(other.tenant, key.id)).status == "active"
    async with reading(pool, operator.tenant) as lent:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await lent.fetchval("SELECT brain.clear_tenant($1, 10)", operator.tenant)


async def test_a_made_key_is_found_and_a_revoked_or_rotated_one_is_not(pool, tenants, keys, operator):
    caller = await make(tenants, operator)
    reader = PostgresReader(pool, MASTER.derived(API_KEYS))
    made, _ = await keys.create(caller, NewKey("k", "agent", ["models:read"]))
    found = await reader.find_api_key(made.key)
    assert (found.tenant, found.key_id, found.role) == (caller.tenant, made.id, "agent")
    assert found.permissions == {"models:read"}
    fresh = Fresh()
    first, replayed = await keys.rotate(caller, made.id, 0, fresh, Once())
    again, _ = await keys.rotate(caller, made.id, 0, fresh, Once())
    assert first == again and not replayed, "a second try of the same request finds what the first committed"
    with pytest.raises(KeyEnded):
        await keys.rotate(caller, made.id, 0, Fresh(), Once())
    assert await reader.find_api_key(made.key) is None
    assert (await reader.find_api_key(first.key)).key_id == first.id
    await keys.revoke(caller, first.id)
    assert await reader.find_api_key(first.key) is None


async def test_keys_made_at_once_stay_within_the_quota(tenants, keys, operator):
    caller = await make(tenants, operator, quotas={"max_keys": 3})
    made = await asyncio.gather(*(keys.create(caller, NewKey("k", "member")) for _ in range(8)), return_exceptions=True)
    refused = [one for one in made if isinstance(one, QuotaExceeded)]
    assert len(refused) == 5 and len(made) == 8


async def test_users_stay_within_the_quota(pool, tenants, operator):
    caller, free = await make(tenants, operator, quotas={"max_users": 2}), await make(tenants, operator)

    async def add(tenant):
        async with reading(pool, tenant) as lent:
            await check_users(lent, tenant)
            user = new_id("usr")
            await lent.execute(
                "INSERT INTO brain.users (tenant_id, id, email, email_key) VALUES ($1, $2, $2, $2)", tenant, user
            )

    made = await asyncio.gather(*(add(caller.tenant) for _ in range(6)), return_exceptions=True)
    assert [type(one) for one in made if one is not None] == [QuotaExceeded] * 4
    await asyncio.gather(*(add(free.tenant) for _ in range(3)))


async def test_a_role_is_not_removed_under_a_key_that_is_being_made(tenants, keys, roles, operator):
    for _ in range(10):
        caller = await make(tenants, operator)
        await roles.create(caller, NewRole("own", "", ["models:read"]))
        made, removed = await asyncio.gather(
            keys.create(caller, NewKey("k", "own")), roles.delete(caller, "own"), return_exceptions=True
        )
        assert isinstance(made, Exception) != isinstance(removed, RoleInUse), (made, removed)


async def test_changed_settings_are_heard_by_every_replica(pool, tenants, operator):
    caller = await make(tenants, operator)
    replicas = []
    for _ in range(2):
        watch, known = AccessWatch(PostgresReader(pool), every=0.05), CachedSettings(PostgresTenants(pool).settings)
        watch.listeners.append(forgets_tenants(known))
        watch.start()
        replicas.append((watch, known))
        assert (await known.settings(caller.tenant)).quotas == Quotas()
    await tenants.change(caller, change=lambda stored: stored.merged(TenantSettings(quotas=Quotas(max_users=7))))
    try:
        async with asyncio.timeout(10):
            for _, known in replicas:
                while (await known.settings(caller.tenant)).quotas.max_users != 7:
                    await asyncio.sleep(0.01)
    finally:
        for watch, _ in replicas:
            await watch.close()


async def test_settings_that_cannot_be_read_are_not_taken_for_none(database_url, tenants, operator):
    caller = await make(tenants, operator)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            """UPDATE brain.tenants SET settings = '{"pii_masking": "shred", "retention_days": 9}' WHERE id = %s""",
            [caller.tenant],
        )
    with pytest.raises(Unavailable):
        await tenants.settings(caller.tenant)
    listed = {one.id: one for one in (await tenants.page(PageQuery(limit=100))).data}
    assert listed[caller.tenant].settings == TenantSettings(retention_days=9), "the operator sees what can be read"
    await tenants.change(caller, change=lambda stored: stored.merged(TenantSettings(pii_masking="mask")))
    assert await tenants.settings(caller.tenant) == TenantSettings(retention_days=9, pii_masking="mask")
    assert await tenants.settings(new_id("ten")) == TenantSettings()


async def test_a_deletion_that_broke_off_is_taken_up_again(pool, store, database_url, tenants, operator, monkeypatch):
    caller = await make(tenants, operator)
    for _ in range(3):
        key = make_conversation(database_url, caller.tenant)
        owner = (await store.activate(key, "0192f0c1-0000-7000-8000-000000000000")).ownership
        send = make_send(key)
        await store.finish(key, owner, unfinished(await store.accept(key, owner, send), send), 1, make_reply())
    monkeypatch.setattr("storage.tenants.AT_ONCE", 10)
    steps = 0

    async def breaks(*_):
        nonlocal steps
        steps += 1
        raise Unavailable

    with monkeypatch.context() as broken:
        broken.setattr("storage.tenants._cleared", breaks)
        with pytest.raises(Unavailable):
            await delete_tenant(pool, caller, caller.tenant)
    assert steps and (await tenants.one(caller.tenant)).status == "suspended", "nobody adds to it meanwhile"
    await delete_tenant(pool, caller, caller.tenant)
    with pytest.raises(NotFound):
        await tenants.one(caller.tenant)
    with pytest.raises(NotFound):
        await delete_tenant(pool, caller, caller.tenant)
    with psycopg.connect(database_url) as connection:
        for table in ("conversations", "messages", "turns", "usage", "idempotency", "reservations", "api_keys"):
            left = connection.execute(f"SELECT count(*) FROM brain.{table} WHERE tenant_id = %s", [caller.tenant])
            assert left.fetchone() == (0,), table
        told = connection.execute("SELECT topic FROM brain.outbox WHERE tenant_id = %s", [caller.tenant]).fetchall()
    assert told == [("tenant.deleted",)]


async def test_the_operators_tenant_is_never_deleted(pool, operator):
    with pytest.raises(NotFound):
        await delete_tenant(pool, operator, operator.tenant)


# Retention


def grow_old(url, key, days):
    """The conversation as if it had been made and left alone `days` ago; its new key."""
    at = datetime.now(UTC) - timedelta(days=days)
    aged = f"conv_{int(at.timestamp() * 1000):012x}{key.conversation[-20:]}"
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO brain.conversations (tenant_id, id, created_at, updated_at) VALUES (%s, %s, %s, %s)",
            (key.tenant, aged, at, at),
        )
    return replace(key, conversation=aged)


async def test_what_a_tenant_keeps_no_longer_is_deleted_and_told(pool, store, database_url, tenants, operator):
    caller, forever = await make(tenants, operator, retention_days=30), await make(tenants, operator)
    young = make_conversation(database_url, caller.tenant)
    old, kept = grow_old(database_url, young, 31), grow_old(database_url, young, 29)
    others = grow_old(database_url, make_conversation(database_url, forever.tenant), 300)
    used = grow_old(database_url, make_conversation(database_url, caller.tenant), 40)
    owner = (await store.activate(used, "0192f0c1-0000-7000-8000-000000000000")).ownership
    await store.accept(used, owner, make_send(used))
    assert await expired_conversations(pool, 1000) == [old]
    assert not await delete_expired(pool, used), "something has happened in it since"
    assert not await delete_expired(pool, others), "this tenant keeps everything"
    with psycopg.connect(database_url) as connection:  # a turn that is still unfinished is waited for
        connection.execute(
            "UPDATE brain.conversations SET updated_at = now() - interval '40 days' WHERE id = %s", [used.conversation]
        )
    retention = Retention(pool, pause=0)
    assert await retention.step() == 1
    assert await retention.step() == 0
    with psycopg.connect(database_url) as connection:
        left = connection.execute(
            "SELECT id FROM brain.conversations WHERE tenant_id = ANY (%s)", [[caller.tenant, forever.tenant]]
        ).fetchall()
        told = connection.execute(
            "SELECT payload FROM brain.outbox WHERE tenant_id = %s AND topic = 'conversation.deleted'", [caller.tenant]
        ).fetchall()
        connection.execute("DELETE FROM brain.conversations WHERE id = %s", [used.conversation])
    assert {young.conversation, kept.conversation, used.conversation, others.conversation} <= {id for (id,) in left}
    assert old.conversation not in str(left) and told == [({"conversation_id": old.conversation},)]


async def test_a_look_at_what_is_past_its_time_is_bounded(pool, database_url, tenants, operator):
    caller = await make(tenants, operator, retention_days=1)
    for _ in range(4):
        grow_old(database_url, make_conversation(database_url, caller.tenant), 2)
    assert len(await expired_conversations(pool, 3)) == 3
    assert await Retention(pool, pause=0).step() == 4


async def test_the_sweep_goes_on_after_trouble(pool, database_url, tenants, operator, monkeypatch):
    caller = await make(tenants, operator, retention_days=1)
    old = grow_old(database_url, make_conversation(database_url, caller.tenant), 2)
    looks = 0

    async def sometimes(of, limit):
        nonlocal looks
        looks += 1
        if looks < 3:
            raise Unavailable if looks == 1 else ValueError("unforeseen")
        return await expired_conversations(of, limit)

    monkeypatch.setattr("serve_app.retention.expired_conversations", sometimes)
    retention = Retention(pool, every=0.01, pause=0)
    retention.start()
    try:
        async with asyncio.timeout(20):
            while old in await expired_conversations(pool, 1000):
                await asyncio.sleep(0.01)
    finally:
        await retention.close()
    assert looks >= 3


# Figures, and the schema


async def test_large_tables_are_estimated(pool, database_url, store, key):
    owner = (await store.activate(key, "0192f0c1-0000-7000-8000-000000000000")).ownership
    for _ in range(5):
        send = make_send(key)
        await store.finish(key, owner, unfinished(await store.accept(key, owner, send), send), 1, make_reply())
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ANALYZE brain.turns")
        connection.execute("ANALYZE brain.messages")
    exact, estimated = await PostgresPlatform(pool).figures(), await PostgresPlatform(pool).figures(2)
    assert exact["messages"]["exact"] and not estimated["messages"]["exact"]
    assert estimated["messages"]["count"] >= 2
    assert sum(exact["turns"]["by_status"].values()) == exact["turns"]["count"] >= 5


def test_the_migration_is_taken_back_exactly(postgres_folder):
    url = make_database(postgres_folder)
    shape = (
        "SELECT 'column', table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'brain'"
        " UNION ALL SELECT 'function', p.oid::regprocedure::text FROM pg_proc p"
        " WHERE p.pronamespace = 'brain'::regnamespace"
        " UNION ALL SELECT 'policy', tablename || ' ' || policyname FROM pg_policies WHERE schemaname = 'brain'"
        " UNION ALL SELECT 'grant', relname || ' ' || coalesce(relacl::text, '') FROM pg_class"
        " WHERE relnamespace = 'brain'::regnamespace ORDER BY 1, 2"
    )

    def seen():
        with psycopg.connect(url) as connection:
            return connection.execute(shape).fetchall()

    downgrade(url, "0011")
    before = seen()
    upgrade(url, "0012")
    assert seen() != before
    downgrade(url, "0011")
    assert seen() == before
