"""What keeps a LanceDB table fast and honest: compaction, indices, and removing what was deleted from the disk.

Deleting a row marks it; LanceDB's own compaction leaves rows of a file that lost less than a tenth where they are, and
an index keeps its copies of their vectors. So files with marked rows are written anew, and indices made anew, after which
old versions are removed. A file beside the table, `NAME.deleted`, says since when there is something to remove.
"""

import asyncio
import re
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from lancedb.index import Bitmap, BTree, HnswSq
from lancedb.query import AsyncVectorQuery
from lancedb.table import AsyncTable

SCALARS: dict[str, Any] = {"id": BTree, "conversation": BTree, "user": BTree, "at": BTree, "intent": Bitmap}
DELETIONS = re.compile(r"^(\d+)-")  # of a file in `_deletions`: the number of the fragment whose rows it marks
VECTOR_INDEX = HnswSq(distance_type="cosine", num_partitions=1, m=20, ef_construction=150)
OUTGROWN = 4  # parts of an index, of which optimising adds one where rows were added: then it is made anew


@dataclass(frozen=True, slots=True)
class Upkeep:
    """From `indexed_from` rows there is an index of the vectors; below, search is exact.

    `kept`: seconds that old versions stay for those who read them. `purge_after`: seconds that deleted rows of an
    indexed table may stay in its files and index, because making that anew takes long.
    """

    indexed_from: int = 100_000
    scalars_from: int = 10_000
    kept: float = 60
    purge_after: float = 24 * 3600

    def tuned(self, query: AsyncVectorQuery, wanted: int) -> AsyncVectorQuery:
        """For an index, where there is one: looks at enough candidates, and scores them exactly."""
        return query.ef(max(2 * wanted, 128)).refine_factor(2)

    async def mark(self, folder: Path, name: str) -> None:
        """Something of the table is being deleted, or was replaced."""
        await asyncio.to_thread(_mark, _marker(folder, name))

    async def forget(self, folder: Path, name: str) -> None:
        """The table is gone."""
        for path in (_marker(folder, name), _taken(folder, name)):
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
        await self._index(table, indexed, purging)
        if purging:
            await self._prune(table)
            await asyncio.to_thread(_taken(folder, name).unlink, missing_ok=True)

    async def emptied(self, table: AsyncTable, folder: Path, name: str) -> None:
        """Remove what an empty table leaves on the disk, at once."""
        for index in await table.list_indices():
            await table.drop_index(index.name)
        await table.optimize(cleanup_older_than=timedelta(milliseconds=1))
        await self.forget(folder, name)

    async def _prune(self, table: AsyncTable) -> None:
        await table.optimize(cleanup_older_than=timedelta(seconds=self.kept))

    async def _index(self, table: AsyncTable, indexed: set[str], anew: bool) -> None:
        rows = await table.count_rows()
        for column, kind in SCALARS.items():
            if rows >= self.scalars_from and (anew or column not in indexed):
                await table.create_index(column, config=kind(), replace=True)
        if rows < self.indexed_from:
            if "vector" in indexed:
                await table.drop_index("vector_idx")
        elif anew or "vector" not in indexed or await _outgrown(table, rows):
            await table.create_index("vector", config=VECTOR_INDEX, replace=True)


async def _indexed(table: AsyncTable) -> set[str]:
    return {column for index in await table.list_indices() for column in index.columns}


async def _outgrown(table: AsyncTable, rows: int) -> bool:
    for index in await table.list_indices():
        if index.columns == ["vector"]:
            return (index.num_segments or 0) > OUTGROWN
    return False


def _marker(folder: Path, name: str) -> Path:
    return folder / f"{name}.deleted"


def _taken(folder: Path, name: str) -> Path:
    return folder / f"{name}.purging"


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
