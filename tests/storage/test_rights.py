"""What the service's login can do with the database, and what it cannot; which logins the service refuses."""

import uuid
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psycopg
import pytest

from domain.errors import Unavailable
from serve_app.embedded.given import check_service
from serve_app.embedded.refusal import Refusal
from storage.postgres import open_pool, reading
from tests.storage.conftest import make_reply, make_send
from tests.storage.test_ownership import unfinished

GRANTED = {
    ("SELECT", "INSERT", "UPDATE", "DELETE"): "conversations turns messages feedback idempotency hosts model_settings"
    " reservations intents intent_trainings intent_heads summaries roles users sessions refresh_tokens clients"
    " auth_codes erasure_steps products product_vectors webhooks channels channel_bindings channel_messages deliveries"
    " tool_servers catalogue_sources",
    ("SELECT", "INSERT", "UPDATE"): "budgets erasures limits_told delivery_lanes tool_calls",
    ("SELECT", "INSERT", "DELETE"): "event_topics tool_consents",
    ("SELECT", "INSERT"): "usage outbox revoked_tokens audit receipt_keys",
    ("SELECT",): "tenants api_keys providers catalog_version complexity_scorers outbox_consumers vector_spaces"
    " signing_keys access_version",
}
"""All that `brain_app` may do with tables. Code that needs more comes with a migration and a word here."""

GRANTED_TO_DEFINER = {
    ("SELECT", "INSERT", "UPDATE", "DELETE"): "providers outbox_consumers outbox_claims outbox_set_aside vector_spaces"
    " tenants api_keys outbox",  # of the outbox it updates who has confirmed, alone
    ("SELECT", "INSERT", "UPDATE"): "signing_keys",
    ("SELECT", "INSERT", "DELETE"): "access_changes",
    ("SELECT", "UPDATE"): "budgets catalog_version intent_trainings access_version product_vectors relays",
    ("SELECT", "INSERT"): "message_words",
    ("SELECT", "DELETE"): "idempotency reservations revoked_tokens sessions deliveries channel_messages",
    ("SELECT", "UPDATE", "DELETE"): "usage delivery_lanes",  # of usage it updates the links alone
    ("SELECT",): "conversations turns messages hosts model_settings intent_heads roles users clients products channels",
}


def by_table(granted):
    return {table: set(verbs) for verbs, tables in granted.items() for table in tables.split()}


TABLES = by_table(GRANTED)
NOT_OF_A_TENANT = {
    "hosts",
    "outbox_consumers",
    "providers",
    "catalog_version",
    "vector_spaces",
    "signing_keys",
    "access_version",
    "receipt_keys",
    "event_topics",
}
DEFINED = {
    "replace_key",
    "clear_tenant",
    "expired_conversations",
    "platform_figures",
    "find_api_key",
    "orphans",
    "unfinished_of",
    "prune",
    "expire_reservations",
    "usage_totals",
    "put_provider",
    "reset_provider",
    "model_settings_since",
    "raise_version",
    "claim_intent_training",
    "active_intent_heads",
    "turns_by_intent",
    "claim_outbox",
    "confirm_outbox",
    "fail_outbox",
    "release_outbox",
    "outbox_lag",
    "create_space",
    "fill_space",
    "finish_space",
    "retire_space",
    "forget_space",
    "messages_after",
    "count_messages_after",
    "search_words",
    "told_messages",
    "keep_words",
    "waiting_words",
    "outbox_size",
    "skip_outbox",
    "access_changed",
    "access_since",
    "revoked_now",
    "prune_access",
    "find_key",
    "rehash_key",
    "list_tenants",
    "create_tenant",
    "change_tenant",
    "delete_tenant",
    "create_key",
    "end_key",
    "keys_used",
    "put_signing_key",
    "end_signing_key",
    "find_client",
    "erase_events",
    "unlink_usage",
    "erase_user_keys",
    "find_products",
    "known_terms",
    "like_lexemes",
    "unknown_words",
    "claim_products",
    "waiting_products",
    "relay_lease",
    "relay_release",
    "relay_take",
    "relay_lost",
    "relay_again",
    "relay_lag",
    "tell_embedded",
    "find_channel",
    "active_channels",
    "outbox_tenants",
    "take_outbox",
    "settle_outbox",
    "claim_lanes",
    "prune_deliveries",
    "deliveries_lag",
}
"""What runs with the rights of `brain_definer`."""

FORBIDDEN = (
    "DROP SCHEMA brain CASCADE",
    "DROP TABLE brain.messages",
    "ALTER TABLE brain.messages DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE brain.messages NO FORCE ROW LEVEL SECURITY",
    "ALTER TABLE brain.messages ADD COLUMN x int",
    "DROP POLICY tenant ON brain.messages",
    "CREATE POLICY open ON brain.messages USING (true)",
    "TRUNCATE brain.messages",
    "CREATE TABLE brain.x (a int)",
    "CREATE TABLE public.x (a int)",
    "CREATE SCHEMA x",
    "CREATE INDEX ON brain.messages (content)",
    "CREATE TRIGGER x BEFORE INSERT ON brain.messages FOR EACH ROW EXECUTE FUNCTION brain.raise_version()",
    "DROP FUNCTION brain.prune()",
    "ALTER FUNCTION brain.prune() RESET search_path",
    "CREATE OR REPLACE FUNCTION brain.tenant() RETURNS text LANGUAGE sql STABLE RETURN 'ten_x'",
    "ALTER ROLE brain_app BYPASSRLS",
    "CREATE ROLE x SUPERUSER",
    "SET ROLE brain_definer",
    "SET ROLE owner",
    "SET SESSION AUTHORIZATION postgres",
    "SET session_replication_role = replica",
    "GRANT brain_definer TO CURRENT_USER",
    "SELECT pg_read_file('postgresql.conf')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT * FROM public.brain_schema_version",
    "SELECT setval('brain.outbox_id_seq', 1)",
    "SELECT brain.skip_outbox('indexer', now(), 1)",
    "UPDATE brain.tenants SET status = 'active'",
    "INSERT INTO brain.tenants (id, name) VALUES ('ten_x', 'x')",
    "DELETE FROM brain.tenants",
    "UPDATE brain.api_keys SET role = 'operator', revoked_at = NULL",
    "INSERT INTO brain.api_keys (tenant_id, id, name, hash, role) VALUES ('ten_x', 'k', 'k', 'x', 'operator')",
    "DELETE FROM brain.api_keys",
    "UPDATE brain.usage SET cost_usd = 0",
    "DELETE FROM brain.usage",
    "DELETE FROM brain.budgets",
    "DELETE FROM brain.outbox",
    "INSERT INTO brain.outbox_consumers (name) VALUES ('x')",
    "DELETE FROM brain.complexity_scorers",
)


@pytest.fixture(scope="session")
def make_login(postgres_folder, database_url):
    """Makes a login with these rights and gives its URL, without a pooler; at the end all are gone."""
    superuser = f"postgresql://postgres@/postgres?host={postgres_folder}"
    made = []

    def make(rights):
        made.append(name := f"l{uuid.uuid4().hex[:12]}")
        with psycopg.connect(superuser, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'y' {rights}")
        parts = urlsplit(database_url)
        return urlunsplit(parts._replace(netloc=f"{name}:y@{parts.netloc.rpartition('@')[2]}"))

    yield make
    with psycopg.connect(superuser, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP ROLE {name}")


@pytest.fixture(scope="session")
def service_url(make_login):
    return make_login("IN ROLE brain_app")


@pytest.fixture
async def as_service(service_url):
    """A connection of the service's login, which inherits its rights, as behind a pooler."""
    connection = await asyncpg.connect(service_url)
    yield connection
    await connection.close()


@pytest.fixture
async def told(store, key):
    """A conversation with an answered turn; its tenant."""
    owner = (await store.activate(key, str(uuid.uuid4()))).ownership
    send = make_send(key)
    await store.finish(key, owner, unfinished(await store.accept(key, owner, send), send), 1, make_reply())
    return key.tenant


@asynccontextmanager
async def acting_for(tenant, connection):
    """A transaction that is taken back; `tenant` is set in it, where there is one."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        if tenant is not None:
            await connection.execute("SELECT set_config('brain.tenant', $1, true)", tenant)
        yield
    finally:
        await transaction.rollback()


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_what_the_service_need_not_do_is_refused(as_service, statement):
    async with acting_for(None, as_service):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await as_service.execute(statement)


@pytest.mark.parametrize(("role", "granted"), [("brain_app", GRANTED), ("brain_definer", GRANTED_TO_DEFINER)])
async def test_a_role_is_granted_this_and_no_more(as_service, role, granted):
    rows = await as_service.fetch(
        "SELECT relname, array_agg(p) AS granted FROM pg_class,"
        " unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p"
        " WHERE relnamespace = 'brain'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')"
        " AND (has_table_privilege($1, oid, p) OR p <> 'TRUNCATE' AND p <> 'DELETE' AND p <> 'TRIGGER'"
        " AND has_any_column_privilege($1, oid, p)) GROUP BY 1",
        role,
    )
    assert {row["relname"]: set(row["granted"]) for row in rows} == by_table(granted)


async def test_neither_the_service_nor_its_role_has_any_attribute_of_an_administrator(as_service):
    rows = await as_service.fetch(
        "SELECT rolname::text FROM pg_roles WHERE (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb"
        " OR rolreplication) AND pg_has_role(current_user, oid, 'MEMBER')"
    )
    assert rows == []
    roles = await as_service.fetch("SELECT rolname::text FROM pg_roles WHERE pg_has_role(current_user, oid, 'MEMBER')")
    assert {row[0] for row in roles} - {await as_service.fetchval("SELECT current_user::text")} == {"brain_app"}


async def test_functions_with_more_rights_are_these_and_nobody_can_put_others_before_what_they_name(as_service):
    rows = await as_service.fetch(
        "SELECT proname::text AS name, pg_get_userbyid(proowner)::text AS owner, proconfig::text[] AS settings,"
        " has_function_privilege('public', oid, 'EXECUTE') AS anybody FROM pg_proc"
        " WHERE pronamespace = 'brain'::regnamespace AND prosecdef"
    )
    assert {row["name"] for row in rows} == DEFINED
    for row in rows:
        assert row["owner"] == "brain_definer" and not row["anybody"], row
        assert "search_path=brain, pg_temp" in row["settings"], row
    definer = await as_service.fetchrow(
        "SELECT rolsuper, rolbypassrls, rolcanlogin, has_schema_privilege(oid, 'brain', 'CREATE') FROM pg_roles"
        " WHERE rolname = 'brain_definer'"
    )
    assert tuple(definer) == (False, False, False, False)


@pytest.mark.parametrize("claimed", [None, "", "ten_nobody"])
async def test_without_its_tenant_no_row_is_seen_or_changed(as_service, told, database_url, claimed):
    seen = set(TABLES) - NOT_OF_A_TENANT
    with psycopg.connect(database_url) as owner:
        there = {table for table in seen if owner.execute(f"SELECT 1 FROM brain.{table} LIMIT 1").fetchone()}
    assert there >= {"tenants", "api_keys", "conversations", "turns", "messages", "idempotency", "outbox"}
    async with acting_for(claimed, as_service):
        for table in seen:
            assert await as_service.fetchval(f"SELECT count(*) FROM brain.{table}") == 0, table
            column = "id" if table == "tenants" else "tenant_id"
            for verb, statement in (
                ("UPDATE", f"UPDATE brain.{table} SET {column} = {column}"),
                ("DELETE", f"DELETE FROM brain.{table}"),
            ):
                if verb in TABLES[table]:
                    assert await as_service.execute(statement) == f"{verb} 0", table


@pytest.mark.parametrize("claimed", [None, "ten_nobody"])
async def test_no_row_can_be_written_in_anothers_name(as_service, key, claimed):
    async with acting_for(claimed, as_service):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await as_service.execute(
                "INSERT INTO brain.conversations (tenant_id, id) VALUES ($1, $2)", key.tenant, str(uuid.uuid4())
            )


async def test_no_row_can_be_given_to_another(as_service, told):
    async with acting_for(told, as_service):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await as_service.execute("UPDATE brain.messages SET tenant_id = 'ten_nobody'")


async def test_a_tenant_does_not_outlive_its_transaction(pool, told):
    async with reading(pool, told) as connection:
        assert await connection.fetchval("SELECT count(*) FROM brain.messages") > 0
    async with pool.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM brain.messages") == 0


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("rights", ["SUPERUSER", "BYPASSRLS IN ROLE brain_app", "IN ROLE brain_app, postgres"])
async def test_a_login_that_row_level_security_does_not_bind_is_refused(make_login, rights, pooled):
    with pytest.raises(Unavailable, match=r"may act as .* a login of its own"):
        await open_pool(make_login(rights), 1, pooled=pooled)


async def test_brain_up_tells_it_in_one_line(make_login):
    with pytest.raises(Refusal, match=r"BRAIN_DATABASE_URL: the service cannot work .* a login of its own"):
        await check_service("BRAIN_DATABASE_URL", make_login("SUPERUSER"), pooled=False)


async def test_behind_a_pooler_a_login_without_the_rights_is_told_which_it_lacks(make_login):
    with pytest.raises(Unavailable, match="GRANT brain_app TO"):
        await open_pool(make_login("NOINHERIT IN ROLE brain_app"), 1, pooled=True)


async def test_the_services_own_login_is_taken_either_way(service_url):
    for pooled in (False, True):
        pool = await open_pool(service_url, 1, pooled=pooled)
        assert await pool.fetchval("SELECT count(*) FROM brain.conversations") == 0
        await pool.close()
