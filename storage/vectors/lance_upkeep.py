"""What keeps a LanceDB table fast and honest: compaction, indices, and removing what was deleted from the disk.

Deleting a row marks it. LanceDB's compaction leaves the rows of a file that lost less than a tenth where they are, and
an index keeps its copies of their vectors. So files with marked rows are written anew, indices are made anew, and then
old versions are removed. A file beside the table, `NAME.deleted`, says since when there is something to remove.
"""

import asyncio
import math
import re
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from lancedb.expr import Expr
from lancedb.index import Bitmap, BTree, IvfSq
from lancedb.query import AsyncVectorQuery
from lancedb.table import AsyncTable

SCALARS: dict[str, Any] = {"id": BTree, "conversation": BTree, "user": BTree, "at": BTree, "intent": Bitmap}
DELETIONS = re.compile(r"^(\d+)-")  # of a file in `_deletions`: the number of the fragment whose rows it marks
PARTITION = 800  # rows of one part of an index, on average
MOST_PARTITIONS, ITERATIONS = 4_096, 20
PROBES = 20  # parts that a search without a condition looks into
REFINED = 2  # times the rows wanted are read for that
FEW = 2_000  # rows that a condition leaves, of which all are compared
SAMPLE = 5  # of how many rows one is counted at most, to know what a condition leaves
OUTGROWN = 2  # times the rows it was made with: then an index is made anew, because its parts have grown too large


@dataclass(frozen=True, slots=True)
class Upkeep:
    """From `indexed_from` rows there is an index of the vectors; below, search is exact.

    `kept`: seconds that old versions stay for those who read them. `purge_after`: seconds that deleted rows of an
    indexed table may stay in its files and index, because making that anew takes long.
    """

    indexed_from: int = 20_000
    scalars_from: int = 10_000
    kept: float = 60
    purge_after: float = 24 * 3600

    async def tuned(self, table: AsyncTable, query: AsyncVectorQuery, allowed: Expr | None) -> AsyncVectorQuery:
        """With its condition, and for an index, where there is one; the vectors it finds are compared exactly.

        An index looks for the nearest in a few parts of the whole. The fewer rows are allowed, the more parts hold
        none, so more are looked into; where few are allowed, all of these are compared without it.
        """
        if allowed is None:
            return query.nprobes(PROBES).refine_factor(REFINED)
        query, total = query.where(allowed), await table.count_rows()
        if total < self.indexed_from // 2:
            return query
        # Not `count_rows`: it takes text, and `Expr.to_sql` makes a quote of a backslash before one.
        most = max(FEW + 1, total // SAMPLE)
        rows = (await table.query().where(allowed).select(["at"]).limit(most).to_arrow()).num_rows
        if rows <= FEW:
            return query.bypass_vector_index()
        return query.nprobes(math.ceil(PROBES * math.sqrt(total / rows))).refine_factor(REFINED)

    async def mark(self, folder: Path, name: str) -> None:
        """Something of the table is being deleted, or was replaced."""
        await asyncio.to_thread(_mark, _marker(folder, name))

    async def forget(self, folder: Path, name: str) -> None:
        """The table is gone."""
        for path in (_marker(folder, name), _taken(folder, name), _built(folder, name)):
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def tend(self, table: AsyncTable, folder: Path, name: str) -> None:
        """All of it. Searches and writes go on; what conflicts with another writer raises, and may be repeated."""
        indexed = await _indexed(table)
        purging = await asyncio.to_thread(_take, folder, name, self.purge_after if "vector" in indexed else 0)
        if purging:
            for fragment in await asyncio.to_thread(_marked, folder, name):
                rows = f"_rowaddr >= {fragment << 32} AND _rowaddr < {(fragment + 1) << 32}"
                await table.update(where=rows, updates_sql={"role": "role"})
        await self._prune(table)
        await self._index(table, indexed, purging, _built(folder, name))
        if purging:
            await self._prune(table)
            await asyncio.to_thread(_taken(folder, name).unlink, missing_ok=True)

    async def emptied(self, table: AsyncTable) -> None:
        """Remove what the rows of a table that has none left on the disk, at once."""
        for index in await table.list_indices():
            await table.drop_index(index.name)
        await table.optimize(cleanup_older_than=timedelta(milliseconds=1))

    async def _prune(self, table: AsyncTable) -> None:
        await table.optimize(cleanup_older_than=timedelta(seconds=self.kept))

    async def _index(self, table: AsyncTable, indexed: set[str], anew: bool, built: Path) -> None:
        rows = await table.count_rows()
        for column, kind in SCALARS.items():
            if rows >= self.scalars_from and (anew or column not in indexed):
                await table.create_index(column, config=kind(), replace=True)
        if rows < self.indexed_from:
            if "vector" in indexed:
                await table.drop_index("vector_idx")
        elif anew or "vector" not in indexed or await asyncio.to_thread(_outgrown, built, rows):
            parts = min(max(rows // PARTITION, 1), MOST_PARTITIONS)
            index: Any = IvfSq(distance_type="cosine", num_partitions=parts, max_iterations=ITERATIONS)
            await table.create_index("vector", config=index, replace=True)
            await asyncio.to_thread(built.write_text, str(rows))


async def _indexed(table: AsyncTable) -> set[str]:
    return {column for index in await table.list_indices() for column in index.columns}


def _outgrown(built: Path, rows: int) -> bool:
    try:
        return rows > OUTGROWN * int(built.read_text())
    except (FileNotFoundError, ValueError):
        return True


def _marker(folder: Path, name: str) -> Path:
    return folder / f"{name}.deleted"


def _taken(folder: Path, name: str) -> Path:
    return folder / f"{name}.purging"


def _built(folder: Path, name: str) -> Path:
    return folder / f"{name}.indexed"  # how many rows the index was made with


def _mark(path: Path) -> None:
    if not path.exists():  # its time is that of the first deletion
        path.touch()


def _take(folder: Path, name: str, after: float) -> bool:
    """Whether there is something to remove, also by one who was killed at it. Deletions from now on mark anew."""
    marker, taken = _marker(folder, name), _taken(folder, name)
    if taken.exists():
        return True
    try:
        if time.time() - marker.stat().st_mtime < after:
            return False
        marker.replace(taken)
    except FileNotFoundError:
        return False
    return True


def _marked(folder: Path, name: str) -> list[int]:
    """Fragments with marked rows, in any version that is still there."""
    files = (folder / f"{name}.lance" / "_deletions").glob("*")
    return sorted({int(match[1]) for path in files if (match := DELETIONS.match(path.name))})
