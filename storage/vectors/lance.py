"""Vectors in a folder: LanceDB, one table a tenant and space, which several processes may write at once.

A write that conflicts with another is made again; a read that meets a file which upkeep has just removed, too.
"""

import asyncio
import hashlib
import logging
import random
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import lancedb
import numpy as np
from lancedb import AsyncConnection
from lancedb.expr import Expr, col, lit
from lancedb.table import AsyncTable

from domain.embedding import Embedding
from domain.errors import Unavailable
from domain.vectors import Found, Space, VectorRecord, Where
from storage.vectors.lance_rows import check_schema, condition, one_of, schema, to_records, to_table
from storage.vectors.lance_upkeep import Upkeep
from storage.vectors.ranking import check, check_question, found, nearest

T = TypeVar("T")

log = logging.getLogger(__name__)

TABLES = 256  # open at once
INDEX_CACHE, METADATA_CACHE = 512 * 2**20, 64 * 2**20  # bytes, of all tables of this process together
BATCH = 1_000  # rows of one commit, ids of one condition
PATIENCE = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # seconds before the next try, of which a random part is taken
FAILURES = (OSError, RuntimeError, ValueError)
MISTAKES = re.compile(r"invalid user input|LanceError\(Schema\)|InvalidInput", re.IGNORECASE)
GONE = re.compile(r"table .* was not found", re.IGNORECASE)
FILES = re.compile(r"was not found|already exists|\bIO\b|\bOs \{")  # what a ValueError says that is none


class LanceVectors:
    """`domain.vectors.VectorStore` over files in `folder`. `upkeep`: when an index is made, and what is removed."""

    def __init__(self, folder: Path, space: Space, upkeep: Upkeep | None = None) -> None:
        self._folder, self._space, self._upkeep = folder, space, upkeep or Upkeep()
        self._connection: AsyncConnection | None = None
        self._tables: OrderedDict[str, AsyncTable] = OrderedDict()
        self._tended: set[str] = set()

    async def upsert(self, tenant: str, records: Sequence[VectorRecord]) -> None:
        check(self._space, (record.vector for record in records))
        last = list({record.id: record for record in records}.values())
        for start in range(0, len(last), BATCH):
            rows = to_table(self._space, last[start : start + BATCH])

            async def merge(table: AsyncTable, rows: object = rows) -> int:
                builder = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
                return int((await builder.execute(rows)).num_updated_rows)

            if await self._call(tenant, merge, create=True):
                await self._upkeep.mark(self._folder, self._name(tenant))

    async def delete(self, tenant: str, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), BATCH):
            await self._delete(tenant, one_of(ids[start : start + BATCH]))

    async def delete_conversation(self, tenant: str, conversation: str) -> None:
        await self._delete(tenant, col("conversation") == lit(conversation))

    async def delete_tenant(self, tenant: str) -> None:
        # The emptied table stays: one made anew would repeat the version numbers that other processes remember.
        await self._delete(tenant, col("id") == col("id"))
        await self._call(tenant, self._upkeep.emptied)

    async def search(self, tenant: str, vector: Embedding, limit: int, where: Where | None = None) -> list[Found]:
        check_question(self._space, vector, limit)
        question, allowed = np.asarray(vector, np.float32), condition(where)

        async def search(table: AsyncTable) -> list[Found]:
            async def ask(wanted: int) -> list[Found]:
                query = table.query().nearest_to(question).distance_type("cosine").limit(wanted)
                query = await self._upkeep.tuned(table, query, allowed)
                rows = await query.select(["id", "conversation", "_distance"]).to_arrow()
                return [found(r["id"], r["conversation"], 1 - r["_distance"]) for r in rows.to_pylist()]

            return await nearest(limit, ask)

        return await self._call(tenant, search) or []

    async def fetch(self, tenant: str, ids: Sequence[str]) -> list[VectorRecord]:
        there: dict[str, VectorRecord] = {}
        for start in range(0, len(ids), BATCH):
            wanted = one_of(ids[start : start + BATCH])

            async def read(table: AsyncTable, wanted: Expr = wanted) -> list[VectorRecord]:
                return to_records(await table.query().where(wanted).to_arrow())

            there |= {record.id: record for record in await self._call(tenant, read) or ()}
        return [there[id] for id in ids if id in there]

    async def count(self, tenant: str) -> int:
        return await self._call(tenant, lambda table: table.count_rows()) or 0

    async def optimise(self, tenant: str) -> None:
        if tenant in self._tended:
            return  # it is being done
        self._tended.add(tenant)
        try:
            await self._call(tenant, lambda table: self._upkeep.tend(table, self._folder, self._name(tenant)))
        finally:
            self._tended.discard(tenant)

    async def drop(self) -> None:
        async def drop() -> None:
            connection = await self._connect()
            for name in await _names(connection):
                if name.startswith(f"{self._space.name}-"):
                    await connection.drop_table(name, ignore_missing=True)
                    await self._upkeep.forget(self._folder, name)

        await self._again(drop)
        await self.close()  # what is remembered of the tables must not meet others of the same names

    async def close(self) -> None:
        self._tables.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()  # type: ignore[no-untyped-call]

    def _name(self, tenant: str) -> str:
        return f"{self._space.name}-{hashlib.sha256(tenant.encode()).hexdigest()[:40]}"

    async def _delete(self, tenant: str, which: Expr) -> None:
        async def delete(table: AsyncTable) -> None:
            # Before: this process may be killed. After: upkeep may have taken the first mark before the rows were gone.
            await self._upkeep.mark(self._folder, self._name(tenant))
            await table.delete(which)
            await self._upkeep.mark(self._folder, self._name(tenant))

        await self._call(tenant, delete)

    async def _call(self, tenant: str, use: Callable[[AsyncTable], Awaitable[T]], create: bool = False) -> T | None:
        """What `use` makes of the tenant's table; None where there is none."""

        async def call() -> T | None:
            table = await self._open(tenant, create)
            try:
                return None if table is None else await use(table)
            except FAILURES:
                self._tables.pop(tenant, None)
                raise

        return await self._again(call)

    async def _again(self, call: Callable[[], Awaitable[T]]) -> T:
        for pause in (*PATIENCE, None):
            try:
                return await call()
            except FAILURES as error:
                if MISTAKES.search(str(error)) or (isinstance(error, ValueError) and not FILES.search(str(error))):
                    raise
                if pause is None:
                    log.warning("vectors in %s: %s", self._folder, error)
                    raise Unavailable("The vectors cannot be read or written now.") from error
                await asyncio.sleep(pause * random.random())
        raise AssertionError

    async def _connect(self) -> AsyncConnection:
        if self._connection is None:
            if await asyncio.to_thread(self._folder.is_file):  # LanceDB would try again for long
                raise Unavailable(f"the vectors cannot be kept in {self._folder}: it is a file")
            self._connection = await lancedb.connect_async(
                str(self._folder),
                read_consistency_interval=timedelta(0),
                session=lancedb.Session(index_cache_size_bytes=INDEX_CACHE, metadata_cache_size_bytes=METADATA_CACHE),
            )
        return self._connection

    async def _open(self, tenant: str, create: bool) -> AsyncTable | None:
        if (table := self._tables.get(tenant)) is not None:
            self._tables.move_to_end(tenant)
            return table
        connection, name = await self._connect(), self._name(tenant)
        try:
            table = await connection.open_table(name)
        except FAILURES as error:
            if not GONE.search(str(error)):
                raise
            if not create:
                return None
            table = await connection.create_table(name, schema=schema(self._space), exist_ok=True)
        check_schema(self._space, await table.schema())
        self._tables[tenant] = table
        if len(self._tables) > TABLES:
            self._tables.popitem(last=False)
        return table


async def _names(connection: AsyncConnection) -> list[str]:
    names: list[str] = []
    token: str | None = None
    while True:
        page = await connection.list_tables(page_token=token, limit=1_000)
        names += page.tables
        if not (token := page.page_token):
            return names
