"""Which code may run on which schema, on a real database."""

import psycopg
import pytest

from storage.compatibility import IncompatibleSchema, check_before, check_pool, check_schema, shipped
from storage.migrations import downgrade, newest
from tests.conftest import free_port, make_database
from tests.servers.given import open_pool


@pytest.fixture
def migrated(postgres_folder):
    return make_database(postgres_folder)


def test_code_runs_on_its_own_schema_and_on_an_expanded_one(migrated):
    assert check_schema(migrated) == newest()
    assert check_schema(migrated, "0004") == newest()


def test_code_older_than_the_schema_allows_is_refused(migrated):
    with pytest.raises(IncompatibleSchema, match="needs code of 0004 or later; this code is 0003"):
        check_schema(migrated, "0003")


def test_an_older_schema_asks_for_the_upgrade(migrated):
    with pytest.raises(IncompatibleSchema, match="run `brain db upgrade` first"):
        check_schema(migrated, "9999")
    downgrade(migrated, "0004")
    with pytest.raises(IncompatibleSchema, match="before 0005"):
        check_schema(migrated)


def test_the_application_role_may_ask(migrated):
    with psycopg.connect(migrated) as connection:
        connection.execute("SET ROLE brain_app")
        assert connection.execute("SELECT revision FROM brain.schema_compatibility()").fetchone() == (newest(),)


def test_the_newest_migration_is_found_without_loading_the_migrations():
    assert shipped() == newest()


async def test_a_replica_asks_with_the_services_rights(migrated):
    pool = await open_pool(migrated, 2)
    await check_pool(pool)
    await check_pool(pool, "0004")
    with pytest.raises(IncompatibleSchema, match="needs code of 0004 or later; this code is 0003"):
        await check_pool(pool, "0003")
    with pytest.raises(IncompatibleSchema, match="run `brain db upgrade` first"):
        await check_pool(pool, "9999")
    downgrade(migrated, "0004")
    with pytest.raises(IncompatibleSchema, match="before 0005"):
        await check_pool(pool)
    await pool.close()


async def test_a_replica_starts_while_the_database_is_away(caplog):
    away = f"postgresql://brain:x@127.0.0.1:{free_port()}/brain"
    pool = await open_pool(away, 2, 0)
    await check_pool(pool)
    check_before(away)
    assert caplog.text.count("is not known") == 2
    await pool.close()
