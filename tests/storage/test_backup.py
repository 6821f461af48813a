"""Backups on a real database: what is in one, that it is of one moment, and what a restore leaves or refuses."""

import asyncio
import gzip
import random
import stat
import uuid
import zlib
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from domain.errors import Fenced
from storage.access import key_hash
from storage.backup import BackupRefused, Damaged
from storage.backup.archive import PIECE
from storage.backup.journals import forget_journals
from storage.backup.read import open_backup
from storage.backup.restore import restore
from storage.backup.tables import LEFT_OUT
from storage.backup.write import write_backup
from storage.conversations import PostgresConversations
from storage.journal import stream_key
from storage.migrations import downgrade, newest
from tests.conftest import make_database, wait_until
from tests.servers.given import open_pool
from tests.storage.backup_world import KEY, answer, everything, fill, shape
from tests.storage.conftest import make_conversation, make_send


@pytest.fixture
def database(postgres_folder):
    return make_database(postgres_folder)


@pytest.fixture
def other(postgres_folder):
    return make_database(postgres_folder)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "brain.backup"


def flipped(content: bytes, place: int, bit: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def put_back(url: str, path: Path, **options):
    with open_backup(path) as backup:
        return restore(url, backup, **options)


def run(url: str, *statements: str):
    with psycopg.connect(url) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


OPEN = "SELECT count(*) FROM brain.sessions WHERE revoked_at IS NULL"
SIGNED_OUT = "SELECT count(*) FROM brain.users WHERE tokens_from > now() - interval '1 hour'"


async def test_every_row_comes_back_as_it_was(database, other, path):
    await fill(database, artefact=4 << 20)
    before = everything(database)
    manifest = write_backup(database, path, "1.2.3", {"api-key": "kept"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert everything(database) == before
    assert {table.name for table in manifest.tables if table.rows} == before.keys()
    scorers = next(table for table in manifest.tables if table.name == "complexity_scorers")
    assert scorers.rows == 2 and scorers.bytes > 2 * PIECE and scorers.pieces == 3

    downgrade(other, "base")
    run(other, "DROP TABLE brain_schema_version")
    with open_backup(path) as backup:
        assert backup.secrets == {"api-key": "kept"} and backup.manifest == manifest
        done = restore(other, backup)
    assert everything(other) == before
    assert run(other, OPEN) == [(0,)] and run(database, OPEN) == [(2,)]
    assert run(other, SIGNED_OUT) == [(2,)] and run(database, SIGNED_OUT) == [(0,)]
    version = "SELECT version FROM brain.access_version"
    assert run(other, version) > run(database, version), "replicas are told that everything may have changed"
    assert shape(other) == shape(database)
    assert done.revision == newest() and done.fenced == 2 and len(done.tenants) == 2


async def test_a_restored_database_serves(database, path):
    first, second = await fill(database)
    highest = run(database, "SELECT max(id) FROM brain.outbox")[0][0]
    write_backup(database, path, "")
    make_conversation(database, first.tenant)
    assert put_back(database, path, replace=True).fenced == 2
    pool = await open_pool(database, 2)
    store = PostgresConversations(pool)
    assert (await pool.fetchrow("SELECT * FROM brain.find_api_key($1)", key_hash(KEY)))[0] == first.tenant
    found = await store.activate(second, str(uuid.uuid4()))
    assert [turn.user_message.content for turn in found.unfinished] == ["it runs"]
    assert (await store.accept(second, found.ownership, make_send(second))).user_message.seq == 4
    assert (await pool.fetchrow("SELECT brain.put_provider('new', '{}', 0) AS version"))["version"] > 0
    await pool.close()
    assert run(database, "SELECT min(id) FROM brain.outbox WHERE id > %d" % highest)[0][0] > 1e15  # noqa: UP031


TORN = """
SELECT 'conversation', c.id FROM brain.conversations c, LATERAL (
        SELECT count(*) AS number, max(seq) AS last FROM brain.messages m
            WHERE m.tenant_id = c.tenant_id AND m.conversation_id = c.id) AS found
    WHERE found.number <> c.message_count OR found.last <> c.next_seq - 1 OR c.next_seq = 1
UNION ALL SELECT 'message', m.id FROM brain.messages m WHERE role = 'user' AND NOT EXISTS (
    SELECT FROM brain.turns t JOIN brain.idempotency i ON i.turn_id = t.id
        JOIN brain.outbox o ON o.payload->>'message_id' = m.id WHERE t.id = m.turn_id AND t.user_seq = m.seq)
UNION ALL SELECT 'turn', t.id FROM brain.turns t WHERE (t.status = 'completed') <> EXISTS (
    SELECT FROM brain.messages m WHERE m.turn_id = t.id AND role = 'assistant')
"""


async def test_a_backup_under_writers_is_one_moment(database, other, path):
    """Before each table is read, every writer has written more turns."""
    keys = [make_conversation(database, found.tenant) for found in await fill(database) for _ in range(2)]
    pool = await open_pool(database, len(keys))
    store = PostgresConversations(pool)
    written = dict.fromkeys(keys, 0)
    enough = asyncio.Event()

    async def write(key):
        owner = (await store.activate(key, str(uuid.uuid4()))).ownership
        while not enough.is_set():
            await answer(store, key, owner, make_send(key))
            written[key] += 1

    def more(*_):
        before = dict(written)
        wait_until(lambda: all(written[key] > before[key] + 1 for key in keys), what="more turns")

    async with asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(write(key))
        await asyncio.to_thread(more)
        manifest = await asyncio.to_thread(write_backup, database, path, "", None, more)
        enough.set()
    await pool.close()
    put_back(other, path)
    assert run(other, TORN) == []
    assert run(other, "SELECT count(*) FROM brain.messages") == [(manifest.rows("messages"),)]
    assert manifest.rows("messages") < run(database, "SELECT count(*) FROM brain.messages")[0][0]


async def test_a_damaged_file_is_refused(database, path):
    await fill(database)
    write_backup(database, path, "")
    whole = path.read_bytes()
    chance = random.Random(11)
    for size in [0, 1, 10, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(20))]:
        path.write_bytes(whole[:size])
        with pytest.raises(Damaged):
            put_back(database, path, replace=True)
    refused = 0
    for _ in range(100):
        path.write_bytes(changed := flipped(whole, chance.randrange(len(whole)), chance.randrange(8)))
        try:
            harmless = gzip.decompress(changed) == gzip.decompress(whole)  # zeros, told in another way
        except (OSError, EOFError, zlib.error):
            harmless = False
        if not harmless:
            refused += 1
            with pytest.raises(Damaged):
                put_back(database, path, replace=True)
    assert refused > 50


async def test_what_fails_half_way_changes_nothing(database, other, path):
    await fill(database)
    await fill(other)
    before, shaped = everything(other), shape(other)
    write_backup(database, path, "")
    with open_backup(path) as backup:
        whole = path.read_bytes()
        path.write_bytes(flipped(whole, len(whole) // 2, 3))  # after it was found to be whole
        with pytest.raises(Damaged):
            restore(other, backup, replace=True)
    assert everything(other) == before
    assert shape(other) == shaped


async def test_a_schema_that_this_code_does_not_know_is_refused(database, other, path):
    await fill(other)
    before = everything(other)
    run(database, "UPDATE brain_schema_version SET version_num = '9999'")
    write_backup(database, path, "7.0")
    with pytest.raises(BackupRefused, match=r"schema is 9999, which Brain 7\.0 wrote"):
        put_back(other, path, replace=True)
    assert everything(other) == before


async def test_an_older_schema_is_brought_to_this_version(database, other, path):
    await fill(database)
    none = {name: [] for name in ("summaries", "erasures", "erasure_steps", "receipt_keys")}
    none |= {name: [] for name in ("tool_servers", "tool_consents", "tool_calls")}
    before = {**everything(database), **none}  # the older schema has none
    downgrade(database, "0004")
    assert write_backup(database, path, "").revision == "0004"
    put_back(other, path)
    later = ["intents", "intent_trainings", "intent_heads", "summaries", "outbox_set_aside", "vector_spaces"]
    later += [
        "roles",
        "clients",
        "auth_codes",
        "users",
        "sessions",
        "refresh_tokens",
        "revoked_tokens",
        "audit",
        "signing_keys",
        "access_changes",
        "limits_told",
        "webhooks",
        "channels",
        "channel_bindings",
        "channel_messages",
        "delivery_lanes",
        "deliveries",
        "products",
        "product_vectors",
        "catalogue_sources",
    ]
    found = everything(other)
    for told in (before, found):
        del told["relays"], told["event_topics"]  # which a migration fills
    for table, columns in (("tenants", {"updated_at"}), ("api_keys", {"prefix"})):
        for told in (before, found):
            told[table] = [
                ({name: value for name, value in row.items() if name not in columns},) for (row,) in told[table]
            ]
    assert found == before | {name: [] for name in later}, "it had no such tables"
    assert run(other, "SELECT version_num FROM brain_schema_version") == [(newest(),)]


async def test_conversations_are_replaced_only_on_demand(database, other, path):
    write_backup(database, path, "")
    await fill(other)
    before = everything(other)
    with pytest.raises(BackupRefused, match="2 conversations"):
        put_back(other, path)
    assert everything(other) == before
    put_back(other, path, replace=True)
    assert run(other, "SELECT count(*) FROM brain.conversations") == [(0,)]


def test_a_running_service_is_refused(database, path):
    write_backup(database, path, "")
    run(database, "INSERT INTO brain.hosts VALUES (gen_random_uuid(), clock_timestamp())")
    with pytest.raises(BackupRefused, match="stop the service"):
        put_back(database, path, replace=True)
    run(database, "UPDATE brain.hosts SET renewed_at = renewed_at - interval '15 s'")
    put_back(database, path, replace=True)


async def test_a_new_table_is_in_the_backup_by_itself(database, path):
    await fill(database)
    run(
        database,
        "CREATE TABLE brain.a_note (tenant_id text, message_id text, note text, id int GENERATED ALWAYS AS IDENTITY,"
        " twice int GENERATED ALWAYS AS (id * 2) STORED,"
        " FOREIGN KEY (tenant_id, message_id) REFERENCES brain.messages (tenant_id, id))",
        "INSERT INTO brain.a_note (note) VALUES ('one'), ('two')",
    )
    manifest = write_backup(database, path, "")
    names = [table.name for table in manifest.tables]
    assert {*names, *LEFT_OUT} == {name for (name,) in run(database, TABLES)}
    assert names.index("a_note") > names.index("messages") > names.index("conversations") > names.index("tenants")
    note = manifest.tables[names.index("a_note")]
    assert note.rows == 2 and note.columns == ["tenant_id", "message_id", "note", "id"]
    assert [(one.last, one.called) for one in manifest.sequences if one.name == "a_note_id_seq"] == [(2, True)]
    with open_backup(path) as backup:
        text = {table.name: b"".join(rows) for table, rows in backup.tables()}
    assert text["a_note"] == b"\\N\t\\N\tone\t1\n\\N\t\\N\ttwo\t2\n"


TABLES = "SELECT relname::text FROM pg_class WHERE relnamespace = 'brain'::regnamespace AND relkind = 'r'"


@pytest.mark.parametrize(
    "change",
    [
        "DROP POLICY administration ON brain.feedback",
        "CREATE POLICY fewer ON brain.feedback AS RESTRICTIVE USING (score = 1)",
    ],
)
async def test_rows_that_its_login_cannot_see_are_not_left_out_in_silence(database, path, change):
    run(database, change)
    with pytest.raises(BackupRefused, match="hides rows of feedback from this login"):
        write_backup(database, path, "")
    assert list(path.parent.iterdir()) == []


async def test_a_host_of_the_time_before_cannot_write_though_its_epoch_comes_again(database, path):
    key = (await fill(database))[0]
    write_backup(database, path, "")
    pool = await open_pool(database, 1)
    old = (await PostgresConversations(pool).activate(key, str(uuid.uuid4()))).ownership
    owned = write_backup(database, path.with_name("owned"), "")
    await pool.close()
    for name in (path, path.with_name("owned")):  # from before its activation, and with it
        put_back(database, name, replace=True)
        pool = await open_pool(database, 1)
        store = PostgresConversations(pool)
        with pytest.raises(Fenced):
            await store.accept(key, old, make_send(key))
        while (new := (await store.activate(key, str(uuid.uuid4()))).ownership).epoch < old.epoch:
            continue
        assert name != path or new.epoch == old.epoch
        with pytest.raises(Fenced):
            await store.accept(key, old, make_send(key))
        await store.accept(key, new, make_send(key))
        await pool.close()
    assert owned.rows("conversations") == 2


def test_journals_of_restored_tenants_are_forgotten(redis_url):
    tenant = f"ten_{uuid.uuid4().hex}"
    ours = [stream_key(tenant, f"turn_{number}", 1) for number in range(1500)]
    kept = [stream_key(f"{tenant}2", "turn_1", 1), "brain:breakers", f"brain:{tenant}:other"]
    with Redis.from_url(redis_url) as redis:
        for key in [*ours, ours[0] + ":claim", *kept]:
            redis.set(key, "")
        assert forget_journals(redis_url, {tenant, "ten_absent"}) == 1501
        assert redis.exists(*kept) == 3 and redis.exists(*ours) == 0
        redis.delete(*kept)
