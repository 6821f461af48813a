"""`python -m benchmarks backup`: how long a backup and its restore take, and what writers feel of one.

One writer accepts and finishes turns, one after another, without and beside `brain backup`, by turns; then, without a
writer, one backup and one restore are timed, from the start of the command to its end. PostgreSQL is the embedded one.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import asyncpg
from rich.console import Console

from benchmarks.fill import fill, new_conversations
from benchmarks.measurements import percentile
from domain.commands import Send, UnfinishedTurn
from domain.conversation import ConversationKey
from domain.ids import new_id
from domain.ports import Reply
from serve_app.embedded import ports
from serve_app.embedded.folder import DataFolder
from serve_app.embedded.postgres import OWNER, Postgres
from storage import bootstrap, migrations
from storage.conversations import PostgresConversations
from storage.postgres import open_pool

TEXT = "of a long conversation about an order and its delivery " * 4


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--messages", type=int, default=100_000, help="messages that are kept (100000)")
    parser.add_argument("--length", type=int, default=100, help="messages of a conversation, an even number (100)")
    parser.add_argument("--rounds", type=int, default=5, help="backups beside a writer (5)")
    parser.set_defaults(run=measure_backup)


def measure_backup(chosen: argparse.Namespace, console: Console) -> None:
    """Measure, and print the figures."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        asyncio.run(_measure(chosen, console, Path(name)))


async def _measure(chosen: argparse.Namespace, console: Console, folder: Path) -> None:
    file = folder / "brain.tar.gz"
    async with _database(folder / "data") as url:
        tenant, _ = await asyncio.to_thread(bootstrap.bootstrap, url, "b" * 40)
        owner = await asyncpg.connect(url)
        await fill(owner, tenant, new_conversations(chosen.messages // chosen.length), chosen.length)
        (mine,) = new_conversations(1)
        await owner.execute("INSERT INTO brain.conversations (tenant_id, id) VALUES ($1, $2)", tenant, mine)
        pool = await open_pool(url, 1)
        writer = _Writer(PostgresConversations(pool), ConversationKey(tenant, mine))
        alone, beside = [], []
        for _ in range(chosen.rounds):
            writing = asyncio.create_task(_brain(url, "backup", str(file), "--force"))
            beside.append(await writer.write_while(writing))
            pause = asyncio.create_task(asyncio.sleep(await writing))
            alone.append(await writer.write_while(pause))
        await pool.close()
        size = await owner.fetchval("SELECT pg_database_size(current_database())")
        count = await owner.fetchval("SELECT count(*) FROM brain.messages")
        await owner.close()
        saved = await _brain(url, "backup", str(file), "--force")
        restored = await _brain(url, "restore", str(file), "--replace")
    console.print(
        f"{count:,} messages, a database of {size / 1e6:,.0f} MB, a file of {file.stat().st_size / 1e6:,.1f} MB"
    )
    console.print(f"backup {saved:.1f} s, restore {restored:.1f} s")
    for share in (50, 99):
        without, with_it = (median(percentile(times, share) for times in found) for found in (alone, beside))
        console.print(f"a turn's two writes, p{share}: {without:.2f} ms, beside a backup {with_it:.2f} ms", end="")
        console.print(f" (× {with_it / without:.2f})")


class _Writer:
    """Writes turns, one after another."""

    def __init__(self, store: PostgresConversations, key: ConversationKey) -> None:
        self._store, self._key = store, key

    async def write_while(self, task: "asyncio.Task[object]") -> list[float]:
        """Milliseconds of each turn until the task is done."""
        owner = (await self._store.activate(self._key, "00000000-0000-0000-0000-000000000000")).ownership
        times = []
        while not task.done():
            turn = new_id("turn")
            send = Send(self._key, "key_1", turn, b"", turn, new_id("msg"), TEXT)
            reply = Reply("completed", new_id("msg"), TEXT, "mock", None, None, None, None, None, {}, 1)
            began = time.perf_counter()
            accepted = await self._store.accept(self._key, owner, send)
            unfinished = UnfinishedTurn(accepted.turn, accepted.user_message, send.model, {}, True, True)
            await self._store.finish(self._key, owner, unfinished, 1, reply)
            times.append((time.perf_counter() - began) * 1000)
        return times


@asynccontextmanager
async def _database(data: Path) -> AsyncIterator[str]:
    """An embedded database with the schema; the URL of its owner."""
    folder = DataFolder(data)
    postgres = Postgres(folder, ports.choose(folder)["postgres"])
    try:
        await postgres.start()
        await postgres.ready()
        await postgres.make_database()
        await asyncio.to_thread(migrations.upgrade, postgres.url(OWNER))
        yield postgres.url(OWNER)
    finally:
        await postgres.stop()


async def _brain(url: str, *arguments: str) -> float:
    """Run a command on the database; its seconds."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "serve_app.cli",
        *arguments,
        env={**os.environ, "BRAIN_DATABASE_ADMIN_URL": url},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    if process.returncode != 0:
        raise SystemExit(told.decode())
    return time.perf_counter() - began
