"""The schema of users' clients and agents' messages goes as it came."""

import psycopg
import pytest

from storage.migrations import downgrade, upgrade
from tests.conftest import make_database

SNAPSHOT = (
    "SELECT relname::text, relkind::text, relacl::text, relrowsecurity, relforcerowsecurity FROM pg_class"
    " WHERE relnamespace = 'brain'::regnamespace ORDER BY 1",
    "SELECT oid::regprocedure::text, pg_get_userbyid(proowner)::text, proacl::text, prosecdef, proconfig::text, prosrc"
    " FROM pg_proc WHERE pronamespace = 'brain'::regnamespace ORDER BY 1",
    "SELECT tablename::text, policyname::text, roles::text, cmd, qual FROM pg_policies WHERE schemaname = 'brain'"
    " ORDER BY 1, 2",
    "SELECT table_name::text, column_name::text, data_type::text, column_default, is_nullable"
    " FROM information_schema.columns WHERE table_schema = 'brain' ORDER BY 1, ordinal_position",
    "SELECT indexdef FROM pg_indexes WHERE schemaname = 'brain' ORDER BY 1",
    "SELECT nspacl::text FROM pg_namespace WHERE nspname = 'brain'",
)


@pytest.fixture
def url(postgres_folder):
    return make_database(postgres_folder)


def schema(url):
    with psycopg.connect(url) as connection:
        return [connection.execute(query).fetchall() for query in SNAPSHOT]


def test_a_downgrade_leaves_what_was_there_before(url):
    downgrade(url, "0011")
    before = schema(url)
    upgrade(url, "0013")
    after = schema(url)
    assert after != before
    downgrade(url, "0011")
    assert schema(url) == before
    upgrade(url, "0013")
    assert schema(url) == after
