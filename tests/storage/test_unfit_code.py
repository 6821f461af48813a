"""Code that does not fit the schema: nothing is built of it, and none of its replicas starts."""

import psycopg
import pytest

from serve_app.app import BuildArguments, build
from serve_app.host_replica import HostReplica
from serve_app.indexer_replica import IndexerReplica
from serve_app.ingress_replica import IngressReplica
from storage.compatibility import IncompatibleSchema
from tests.conftest import make_database


@pytest.fixture
def contracted(postgres_folder, redis_url, monkeypatch):
    """The service's settings name a database whose schema allows later code alone."""
    url = make_database(postgres_folder)
    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION brain.schema_compatibility(OUT revision text, OUT compatible_from text)"
            " LANGUAGE sql IMMUTABLE AS $$ SELECT '9002', '9001' $$"
        )
    monkeypatch.setenv("BRAIN_DATABASE_URL", url)
    monkeypatch.setenv("BRAIN_REDIS_URL", redis_url)
    for module in ("host_replica", "ingress_replica", "indexer_replica"):
        monkeypatch.setattr(f"serve_app.{module}.prepare", lambda level: None)  # logs as of a process of its own
    return url


def test_a_deployment_is_refused_before_anything_is_replaced(contracted):
    with pytest.raises(IncompatibleSchema, match="needs code of 9001 or later"):
        build(BuildArguments())


@pytest.mark.filterwarnings("ignore:coroutine '.*__del__' was never awaited")
@pytest.mark.parametrize(
    ("replica", "handles"),
    [
        (HostReplica, [None, None, {}, None, None]),
        (IngressReplica, [None] * 4 + [{}, None, None, None, None]),
        (IndexerReplica, [None]),
    ],
)
async def test_a_replica_does_not_start(contracted, replica, handles):
    with pytest.raises(IncompatibleSchema, match="needs code of 9001 or later"):
        await replica.__init__(object.__new__(replica), *handles)


def test_a_deployment_without_a_master_key_is_refused_before_anything_is_replaced(database_url, monkeypatch):
    monkeypatch.setenv("BRAIN_DATABASE_URL", database_url)
    for name in ("BRAIN_MASTER_KEY", "BRAIN_MASTER_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="BRAIN_MASTER_KEY"):
        build(BuildArguments())
