"""Two releases on one database: the later one's migration expands the schema, both write, and it contracts at last."""

import os
import subprocess
import sys

import asyncpg
import psycopg
import pytest

from domain.ids import new_id
from domain.tenant import Caller
from storage.bootstrap import bootstrap
from storage.compatibility import IncompatibleSchema, check_schema, shipped
from storage.creation import NewConversation, create_conversation
from tests.conftest import make_database
from tests.rollouts.release import CONTRACTION, EXPANSION, Release, contracted, expanded
from tests.servers.given import open_pool


def runs(made: Release, program: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(made.tree)}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


UPGRADE = "import sys; from storage.migrations import upgrade; upgrade(*sys.argv[1:])"
DOWNGRADE = "import sys; from storage.migrations import downgrade; downgrade(*sys.argv[1:])"
CHECK = "import sys; from storage.compatibility import check_schema; print(check_schema(sys.argv[1]))"
CREATE = """
import asyncio, sys
from domain.ids import new_id
from domain.tenant import Caller
from storage.creation import NewConversation, create_conversation
from storage.postgres import open_pool

async def main(url, tenant):
    pool = await open_pool(url, 1)
    made = NewConversation(new_id("conv"), None, None, {}, None)
    print((await create_conversation(pool, Caller(tenant, "key_1", "operator"), made))[0].id)
    await pool.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_schema_is_expanded_and_contracted_under_two_releases(postgres_folder, tmp_path):
    url, before = make_database(postgres_folder), shipped()
    tenant = bootstrap(url, "k" * 40)[0]
    following, last = expanded(tmp_path, "0.2.0", before), contracted(tmp_path, "0.3.0", before)
    pool = await open_pool(url, 1)

    async def create() -> str:
        made = NewConversation(new_id("conv"), None, None, {}, None)
        return (await create_conversation(pool, Caller(tenant, "key_1", "operator"), made))[0].id

    def made_by(conversation: str) -> str:
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT made_by FROM brain.conversations WHERE id = %s", [conversation]).fetchone()
        assert row is not None
        return str(row[0])

    first = await create()
    runs(following, UPGRADE, url)
    assert check_schema(url) == EXPANSION == runs(following, CHECK, url), "both run on it"
    assert [made_by(one) for one in (first, await create())] == ["before", "before"]
    assert made_by(runs(following, CREATE, url, tenant)) == "0.2.0"

    runs(last, UPGRADE, url)
    assert CONTRACTION == runs(following, CHECK, url) == runs(last, CHECK, url)
    with pytest.raises(IncompatibleSchema, match=f"needs code of {EXPANSION} or later; this code is {before}"):
        check_schema(url)
    with pytest.raises(asyncpg.NotNullViolationError):
        await create()  # what the refusal keeps from clients

    runs(last, DOWNGRADE, url, EXPANSION)
    assert made_by(await create()) == "before", "the way back"
    runs(following, DOWNGRADE, url, before)
    assert check_schema(url) == before
    await pool.close()
