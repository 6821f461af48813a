"""Whose turns are taken over: those of hosts whose lease has run out, whatever the clock did meanwhile."""

import asyncio
import uuid

import psycopg

from storage.leases import PostgresLeases
from tests.storage.conftest import make_conversation, make_send

LEASE = 3.0


async def orphaned(leases, key) -> bool:
    return key in await leases.orphans(LEASE, 10_000)


def renewed(url: str, host: str, when: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(f"UPDATE brain.hosts SET renewed_at = clock_timestamp() {when} WHERE id = %s", (host,))


async def test_turns_of_a_host_are_taken_over_when_its_lease_has_run_out(pool, store, tenant, database_url):
    leases, host = PostgresLeases(pool), str(uuid.uuid4())
    key = make_conversation(database_url, tenant)
    await store.accept(key, (await store.activate(key, host)).ownership, make_send(key))
    assert await orphaned(leases, key)  # it never had one
    await leases.renew(host)
    assert not await orphaned(leases, key)
    await asyncio.to_thread(renewed, database_url, host, "- interval '4 seconds'")
    assert await orphaned(leases, key)


async def test_a_lease_from_the_future_ends_with_the_next_renewal_of_another_host(pool, store, tenant, database_url):
    leases, dead, alive = PostgresLeases(pool), str(uuid.uuid4()), str(uuid.uuid4())
    key = make_conversation(database_url, tenant)
    await store.accept(key, (await store.activate(key, dead)).ownership, make_send(key))
    await leases.renew(dead)
    await leases.renew(alive)
    await asyncio.to_thread(renewed, database_url, dead, "+ interval '1 hour'")  # and then the clock was put right
    await asyncio.to_thread(renewed, database_url, alive, "+ interval '1 hour'")
    await leases.renew(alive)
    assert await orphaned(leases, key)
    await leases.renew(alive)
    with psycopg.connect(database_url) as connection:
        sql = "SELECT renewed_at <= clock_timestamp() FROM brain.hosts WHERE id = %s"
        assert connection.execute(sql, (alive,)).fetchone() == (True,)
