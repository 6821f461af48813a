"""The outbox as its consumers see it: every row in one pair of hands at a time, until it is confirmed or set aside."""

import asyncio
import uuid

import psycopg
import pytest

from domain.ids import new_id
from storage.leases import PostgresLeases
from storage.outbox import PostgresOutbox
from tests.servers.given import open_pool

CONSUMER = "indexer"


@pytest.fixture(autouse=True)
def emptied(url):
    with psycopg.connect(url) as connection:
        connection.execute("TRUNCATE brain.outbox, brain.outbox_claims, brain.outbox_set_aside")
        connection.execute("DELETE FROM brain.outbox_consumers WHERE name <> 'indexer'")


@pytest.fixture
async def pool(url):
    pool = await open_pool(url, 8)
    yield pool
    await pool.close()


def run(url, statement, *values):
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def put(url, tenant: str, number: int = 1, topic: str = "message.received") -> list[int]:
    return [
        row[0]
        for row in run(
            url,
            "INSERT INTO brain.outbox (tenant_id, topic, payload) SELECT %s, %s, jsonb_build_object('message_id', n)"
            " FROM generate_series(1, %s) n RETURNING id",
            tenant,
            topic,
            number,
        )
    ]


def over(url, ids) -> None:
    """Let the leases of these run out."""
    run(url, "UPDATE brain.outbox_claims SET until = clock_timestamp() - interval '1 s' WHERE outbox_id = ANY(%s)", ids)


def generation(url) -> int:
    return int(run(url, "SELECT generation FROM brain.outbox_consumers WHERE name = 'indexer'")[0][0])


async def test_what_is_claimed_is_read_and_confirmed_once(url, pool):
    outbox, tenant = PostgresOutbox(pool, CONSUMER), new_id("ten")
    ids, now = put(url, tenant, 3), generation(url)
    claims = await outbox.claim(now, 10)
    assert [(claim.tenant, claim.id, claim.delivery) for claim in claims] == [(tenant, one, 1) for one in ids]
    assert await outbox.claim(now, 10) == [], "they are held"
    events = await outbox.read(tenant, claims)
    assert [(event.id, event.topic, event.payload) for event in events] == [
        (one, "message.received", {"message_id": n}) for n, one in enumerate(ids, 1)
    ]
    assert await outbox.confirm(now, ids) == 3
    assert await outbox.confirm(now, ids) == 0
    assert await outbox.claim(now, 10) == []
    assert run(url, "SELECT DISTINCT confirmed FROM brain.outbox") == [(["indexer"],)]
    assert run(url, "SELECT count(*) FROM brain.outbox_claims") == [(0,)]


async def test_a_row_that_is_committed_late_is_not_passed_over(url, pool):
    outbox, tenant, now = PostgresOutbox(pool, CONSUMER), new_id("ten"), generation(url)
    with psycopg.connect(url) as slow:
        insert = "INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES (%s, 't', '{}') RETURNING id"
        [late] = slow.execute(insert, [tenant]).fetchone()
        [early] = put(url, tenant)
        assert late < early
        assert [claim.id for claim in await outbox.claim(now, 10)] == [early]
        assert await outbox.confirm(now, [early]) == 1
    assert [claim.id for claim in await outbox.claim(now, 10)] == [late]


async def test_many_claim_at_once_and_each_row_is_held_once(url, pool):
    now = generation(url)
    ids = {one for _ in range(4) for one in put(url, new_id("ten"), 40)}
    consumers = [PostgresOutbox(pool, CONSUMER, share=7) for _ in range(6)]
    held: list[int] = []

    async def work(outbox: PostgresOutbox) -> None:
        while claims := await outbox.claim(now, 20):
            held.extend(claim.id for claim in claims)
            assert await outbox.confirm(now, [claim.id for claim in claims]) == len(claims)

    while len(held) < len(ids):  # a claim that met nothing but others' rows is no end
        await asyncio.gather(*map(work, consumers))
    assert sorted(held) == sorted(ids)


async def test_each_tenant_gets_its_share(url, pool):
    tenants = sorted(new_id("ten") for _ in range(3))
    outbox, now = PostgresOutbox(pool, CONSUMER, share=5), generation(url)
    put(url, tenants[0], 100)
    for tenant in tenants[1:]:
        put(url, tenant, 2)
    first = await outbox.claim(now, 50)
    assert [sum(claim.tenant == tenant for claim in first) for tenant in tenants] == [5, 2, 2]
    small = PostgresOutbox(pool, CONSUMER, share=5)
    put(url, tenants[1], 5)
    put(url, tenants[2], 5)
    turns = [{claim.tenant for claim in await small.claim(now, 5)} for _ in range(4)]
    assert turns == [{tenants[0]}, {tenants[1]}, {tenants[2]}, {tenants[0]}], "round to the first"


async def test_a_claim_ends_with_its_lease_and_its_holder_can_confirm_no_more(url, pool):
    dead, alive, now = PostgresOutbox(pool, CONSUMER), PostgresOutbox(pool, CONSUMER), generation(url)
    ids = put(url, new_id("ten"), 2)
    await dead.claim(now, 10)
    assert await alive.claim(now, 10) == []
    over(url, ids[:1])
    [claim] = await alive.claim(now, 10)
    assert (claim.id, claim.delivery) == (ids[0], 2)
    assert await dead.confirm(now, ids) == 1, "its lease of the second still holds"
    assert await alive.confirm(now, ids) == 1


async def test_a_row_that_fails_is_tried_later_and_set_aside_at_last(url, pool):
    outbox, now, tenant = PostgresOutbox(pool, CONSUMER, most=3, pause=30), generation(url), new_id("ten")
    bad, good = put(url, tenant, 2)
    await outbox.claim(now, 10)
    for failures in (1, 2, 3):
        assert await outbox.fail([bad], "no \0 vector") == (failures == 3)
        if failures < 3:
            [(waits,)] = run(
                url,
                "SELECT extract(epoch FROM until - clock_timestamp()) / 30 FROM brain.outbox_claims"
                " WHERE outbox_id = %s",
                bad,
            )
            assert 2 ** (failures - 1) * 0.9 < waits <= 2 ** (failures - 1), "twice as late each time"
            over(url, [bad])
            assert [claim.id for claim in await outbox.claim(now, 10)] == [bad]
    assert await outbox.confirm(now, [good]) == 1, "others go on"
    assert await outbox.claim(now, 10) == []
    aside = run(url, "SELECT outbox_id, tenant_id, topic, failures, error FROM brain.outbox_set_aside")
    assert aside == [(bad, tenant, "message.received", 3, "no  vector")]
    assert (await outbox.lag()).set_aside == 1
    assert run(url, "SELECT count(*) FROM brain.outbox WHERE confirmed = '{indexer}'") == [(2,)]


async def test_what_is_given_back_counts_as_no_failure(url, pool):
    outbox, other, now = PostgresOutbox(pool, CONSUMER), PostgresOutbox(pool, CONSUMER), generation(url)
    ids = put(url, new_id("ten"), 2)
    await outbox.claim(now, 10)
    await outbox.release(ids)
    assert [claim.id for claim in await other.claim(now, 10)] == ids
    assert run(url, "SELECT max(failures) FROM brain.outbox_claims") == [(0,)]


async def test_a_generation_that_is_over_claims_and_confirms_nothing(url, pool):
    outbox, now = PostgresOutbox(pool, CONSUMER), generation(url)
    ids = put(url, new_id("ten"), 2)
    await outbox.claim(now, 10)
    run(url, "UPDATE brain.outbox_consumers SET generation = generation + 1 WHERE name = 'indexer'")
    assert await outbox.confirm(now, ids) == 0
    assert await outbox.claim(now, 10) == []
    assert [claim.id for claim in await outbox.claim(now + 1, 10)] == ids, "the lease of before does not count"


async def test_the_lag_tells_rows_and_the_age_of_the_oldest(url, pool):
    outbox, now = PostgresOutbox(pool, CONSUMER), generation(url)
    assert await outbox.lag() == type(await outbox.lag())(0, 0.0, 0)
    old, tenant = new_id("ten"), new_id("ten")
    [first] = put(url, old)
    ids = put(url, tenant, 3)
    run(url, "UPDATE brain.outbox SET created_at = now() - interval '90 s' WHERE id = %s", first)
    lag = await outbox.lag()
    assert lag.waiting == 4 and 90 <= lag.seconds < 120
    await outbox.claim(now, 10)
    assert (await outbox.lag()).waiting == 4, "claimed is not done"
    await outbox.confirm(now, [first])
    lag = await outbox.lag()
    assert lag.waiting == 3 and lag.seconds < 60
    await outbox.confirm(now, ids)
    assert (await outbox.lag()).waiting == 0


async def test_a_row_stays_until_every_consumer_has_confirmed_it(url, pool):
    run(url, "INSERT INTO brain.outbox_consumers (name) VALUES ('events')")
    indexer, events, now = PostgresOutbox(pool, CONSUMER), PostgresOutbox(pool, "events"), generation(url)
    ids = put(url, new_id("ten"), 3)
    run(url, "UPDATE brain.outbox SET created_at = now() - interval '2 days'")
    assert [claim.id for claim in await indexer.claim(now, 10)] == ids
    assert [claim.id for claim in await events.claim(1, 10)] == ids, "each for itself"
    await indexer.confirm(now, ids)
    await events.confirm(1, ids[:2])
    await PostgresLeases(pool).prune()
    assert run(url, "SELECT id FROM brain.outbox") == [(ids[2],)]


async def test_the_service_sees_no_other_tenants_rows(url, pool):
    outbox, now = PostgresOutbox(pool, CONSUMER), generation(url)
    mine, other = new_id("ten"), new_id("ten")
    put(url, mine)
    put(url, other)
    claims = await outbox.claim(now, 10)
    assert len(claims) == 2
    assert [event.id for event in await outbox.read(mine, claims)] == [
        claim.id for claim in claims if claim.tenant == mine
    ]


async def test_claims_use_the_consumers_index(url):
    with psycopg.connect(url) as connection:
        connection.execute("SET enable_seqscan = off")
        connection.execute("SET enable_bitmapscan = off")
        plan = "\n".join(
            row[0]
            for row in connection.execute(
                "EXPLAIN SELECT id FROM brain.outbox o WHERE NOT (o.confirmed @> '{indexer}'::text[])"
                " AND o.tenant_id = 'ten_x' ORDER BY o.id LIMIT 5"
            )
        )
    assert "outbox_of_indexer" in plan and "Sort" not in plan


def test_a_deleted_tenant_is_an_event(url):
    tenant = f"ten_{uuid.uuid4().hex}"
    run(url, "INSERT INTO brain.tenants (id, name) VALUES (%s, 'x')", tenant)
    run(url, "DELETE FROM brain.tenants WHERE id = %s", tenant)
    assert run(url, "SELECT tenant_id, topic FROM brain.outbox") == [(tenant, "tenant.deleted")]
