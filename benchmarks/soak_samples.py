"""What a running service holds, read from outside: its processes, PostgreSQL, and Redis."""

import asyncio
import contextlib
import json
import re
from collections import Counter

import asyncpg
import psutil
from redis.asyncio import Redis

from benchmarks.process_tree import below
from benchmarks.systems.brain import Brain

_REPLICA = re.compile(r"ServeReplica:[^:]+:(\w+)")
_KINDS = ("postgres", "redis-server", "raylet", "gcs_server", "haproxy")
TABLES = """
SELECT relname, n_dead_tup, n_live_tup, pg_total_relation_size(relid) FROM pg_stat_user_tables
WHERE schemaname = 'brain' AND n_live_tup + n_dead_tup > 0
"""


class Sampler:
    """Series are named `kind what`, as in `ConversationHost rss_mb` or `redis keys`."""

    def __init__(self, service: Brain) -> None:
        self._service = service

    async def __aenter__(self) -> "Sampler":
        port = json.loads((self._service.data / "state.json").read_text())["ports"]["single"]["redis"]
        password = (self._service.data / "secrets" / "redis").read_text().strip()
        self._redis = Redis(host="127.0.0.1", port=port, password=password)
        self._database = await asyncpg.connect(self._service.admin_url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._redis.aclose()
        await self._database.close()

    async def sample(self) -> dict[str, float]:
        """All series now."""
        found = Counter[str]()
        found.update(await asyncio.to_thread(self._processes))
        connections = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        found["postgres connections"] = await self._database.fetchval(connections)
        for table, dead, live, size in await self._database.fetch(TABLES):
            found[f"table {table} dead_rows"], found[f"table {table} rows"] = dead, live
            found[f"table {table} mb"] = size / 1e6
        found["redis keys"] = await self._redis.dbsize()
        found["redis used_mb"] = (await self._redis.info("memory"))["used_memory"] / 1e6
        return dict(found)

    def _processes(self) -> Counter[str]:
        found = Counter[str]()
        for process in [psutil.Process(self._service.pid), *below(self._service.pid)]:
            with contextlib.suppress(psutil.Error):
                kind = _kind(process)
                held = _of_a_backend(process) if kind == "postgres" else _of_a_process(process)
                for what, value in (*held.items(), ("processes", 1)):
                    found[f"{kind} {what}"] += value
        for what in ("private_mb_each", "fds_each"):
            found[f"postgres {what}"] /= max(found["postgres processes"], 1)
        return found


def _of_a_process(process: psutil.Process) -> dict[str, float]:
    with process.oneshot():
        rss, fds, threads = process.memory_info().rss, process.num_fds(), process.num_threads()
    return {"rss_mb": rss / 1e6, "fds": fds, "threads": threads}


def _of_a_backend(process: psutil.Process) -> dict[str, float]:
    """What it shares with the others, the buffers, counts in the resident memory of each that has touched them, and
    pools open and close connections: what one process holds is what can creep, besides their number."""
    return {"private_mb_each": process.memory_full_info().uss / 1e6, "fds_each": process.num_fds()}


def _kind(process: psutil.Process) -> str:
    title = " ".join(process.cmdline())
    if replica := _REPLICA.search(title):
        return replica[1]
    return next((kind for kind in _KINDS if kind in title), "other")
