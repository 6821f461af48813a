"""Which code may run on which schema, on a real database."""

import psycopg
import pytest

from storage.compatibility import IncompatibleSchema, check_schema
from storage.migrations import downgrade, newest
from tests.conftest import make_database


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
