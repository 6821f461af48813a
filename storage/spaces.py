"""Spaces of vectors (`domain.indexing.Spaces`): which one counts, and how far it has been filled."""

import uuid
from datetime import timedelta

from domain.embedding import EmbedderInfo
from domain.indexing import KnownSpace, identity
from domain.vectors import Space
from storage.postgres import Pool, asking, call

_KNOWN = """
SELECT s.name, s.embedder, s.dimensions, s.filled_at IS NOT NULL AS filled, c.generation
    FROM brain.vector_spaces s CROSS JOIN brain.outbox_consumers c WHERE s.state = $1 AND c.name = 'indexer'
"""
_RETIRED = """
SELECT name, embedder, dimensions FROM brain.vector_spaces
    WHERE state = 'retired' AND retired_at < clock_timestamp() - $1::interval
"""

FINISHING = 600.0  # seconds: what happened since the building began is handed out again, as one


class PostgresSpaces:
    """`lease`: seconds that a filler may be silent until another one goes on in its place."""

    def __init__(self, pool: Pool, lease: float = 60) -> None:
        self._pool, self._filler, self._lease = pool, str(uuid.uuid4()), timedelta(seconds=lease)

    async def active(self) -> KnownSpace | None:
        return await self._known("active")

    async def building(self) -> KnownSpace | None:
        return await self._known("building")

    async def _known(self, state: str) -> KnownSpace | None:
        async with asking(self._pool) as lent:
            row = await lent.fetchrow(_KNOWN, state)
        if row is None:
            return None
        return KnownSpace(Space(row["name"], row["embedder"], row["dimensions"]), row["filled"], row["generation"])

    async def create(self, info: EmbedderInfo, state: str) -> None:
        name = f"s{uuid.uuid4().hex[:12]}"  # never one that was there before, also after a restore
        await call(
            self._pool, "SELECT brain.create_space($1, $2, $3, $4)", name, identity(info), info.dimensions, state
        )

    async def fill(self, name: str, reached: tuple[str, str] | None = None) -> tuple[str, str] | None:
        tenant, message = reached or (None, None)
        row = await call(
            self._pool,
            "SELECT * FROM brain.fill_space($1, $2, $3, $4, $5)",
            name,
            self._filler,
            self._lease,
            tenant,
            message,
        )
        return None if row["tenant_reached"] is None else (row["tenant_reached"], row["message_reached"])

    async def leave(self, name: str) -> None:
        """Fill it no further: another one may go on at once."""
        await call(
            self._pool, "SELECT * FROM brain.fill_space($1, $2, $3, NULL, NULL)", name, self._filler, timedelta(0)
        )

    async def finish(self, name: str) -> bool:
        statement = "SELECT brain.finish_space($1, $2)"
        return bool((await call(self._pool, statement, name, self._filler, within=FINISHING))[0])

    async def retire(self, name: str) -> bool:
        """Give up a space that is being built; False where there is none of that name."""
        return bool((await call(self._pool, "SELECT brain.retire_space($1)", name))[0])

    async def retired(self, seconds: float) -> list[Space]:
        async with asking(self._pool) as lent:
            rows = await lent.fetch(_RETIRED, timedelta(seconds=seconds))
        return [Space(row["name"], row["embedder"], row["dimensions"]) for row in rows]

    async def forget(self, name: str) -> None:
        await call(self._pool, "SELECT brain.forget_space($1)", name)
