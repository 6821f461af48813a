"""Vectors in memory, by exact search: what `domain.vectors.VectorStore` promises, and the order that it did it in."""

import asyncio
from collections.abc import Sequence

import numpy as np

from domain.embedding import Embedding
from domain.errors import Unavailable
from domain.vectors import Found, Space, VectorRecord, Where


class MemoryVectors:
    """The vectors of one space. `away`: every call raises. A record whose id is in `refused` cannot be written."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.tenants: dict[str, dict[str, VectorRecord]] = {}
        self.away = False
        self.refused: set[str] = set()
        self.optimised: list[str] = []
        self.dropped = False

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("the vectors are away")

    async def upsert(self, tenant: str, records: Sequence[VectorRecord]) -> None:
        await self._reach()
        if self.refused & {record.id for record in records}:
            raise ValueError("this vector cannot be stored")
        for record in records:
            if len(record.vector) != self.space.dimensions:
                raise ValueError("other dimensions")
            self.tenants.setdefault(tenant, {})[record.id] = record

    async def delete(self, tenant: str, ids: Sequence[str]) -> None:
        await self._reach()
        for id in ids:
            self.tenants.get(tenant, {}).pop(id, None)

    async def delete_conversation(self, tenant: str, conversation: str) -> None:
        await self._reach()
        kept = {id: one for id, one in self.tenants.get(tenant, {}).items() if one.conversation != conversation}
        self.tenants[tenant] = kept

    async def delete_tenant(self, tenant: str) -> None:
        await self._reach()
        self.tenants.pop(tenant, None)

    async def search(self, tenant: str, vector: Embedding, limit: int, where: Where | None = None) -> list[Found]:
        await self._reach()
        found = [
            Found(one.id, one.conversation, float(np.dot(one.vector, vector)))
            for one in self.tenants.get(tenant, {}).values()
            if where is None or _allowed(one, where)
        ]
        return sorted(found, key=lambda one: (-one.score, one.id))[:limit]

    async def fetch(self, tenant: str, ids: Sequence[str]) -> list[VectorRecord]:
        await self._reach()
        kept = self.tenants.get(tenant, {})
        return [kept[id] for id in ids if id in kept]

    async def count(self, tenant: str) -> int:
        await self._reach()
        return len(self.tenants.get(tenant, {}))

    async def optimise(self, tenant: str) -> None:
        await self._reach()
        self.optimised.append(tenant)

    async def drop(self) -> None:
        await self._reach()
        self.tenants.clear()
        self.dropped = True

    async def close(self) -> None:
        await asyncio.sleep(0)


def _allowed(one: VectorRecord, where: Where) -> bool:
    return (
        where.user in (None, one.user)
        and where.conversation in (None, one.conversation)
        and (where.other_than is None or one.conversation != where.other_than)
        and where.role in (None, one.role)
        and where.intent in (None, one.intent)
        and (where.since is None or one.at >= where.since)
        and (where.until is None or one.at < where.until)
    )
