"""What is left to an owner once its database was put back to an earlier moment."""

import uuid

import psycopg
import pytest

from domain.errors import Fenced
from storage.fence import fence
from tests.storage.conftest import make_send


@pytest.mark.parametrize("fenced", [True, False])
async def test_only_a_fence_stops_an_owner_whose_claim_came_back(store, key, database_url, fenced):
    host = str(uuid.uuid4())
    owner = (await store.activate(key, host)).ownership
    await store.accept(key, owner, make_send(key))
    if not fenced:
        await store.accept(key, owner, make_send(key))
        return
    assert fence(database_url) >= 1
    with pytest.raises(Fenced):
        await store.accept(key, owner, make_send(key))
    found = await store.activate(key, host)
    assert len(found.unfinished) == 1


async def test_outbox_ids_go_on_after_every_one_that_was_given(store, key, database_url):
    with psycopg.connect(database_url) as connection:
        now = connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()[0]
    fence(database_url)
    owner = (await store.activate(key, str(uuid.uuid4()))).ownership
    await store.accept(key, owner, make_send(key))
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT max(id) FROM brain.outbox").fetchone()[0] > now
