"""Vectors in Qdrant: one collection a space, whose points carry their tenant.

One collection, not one a tenant: each costs the server memory and files, whatever it holds, and Qdrant keeps a tenant's
points together where their tenant is indexed (https://qdrant.tech/documentation/guides/multitenancy/).
"""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import httpx
from qdrant_client import AsyncQdrantClient
from qdrant_client import models as q
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from domain.embedding import Embedding
from domain.errors import BrainError, SpaceMismatch, Unavailable
from domain.vectors import Found, Space, VectorRecord, Where
from storage.vectors.ranking import check, check_question, found, nearest

T = TypeVar("T")

POINTS = uuid.UUID("7f3c0f0e-52c1-4a64-93b5-0d6f3a9c7d11")  # the namespace of points' ids
BATCH = 256  # points of one request
KEYWORDS = ("conversation", "user", "intent", "role")
EMBEDDER = "embedder"


class Gone(Unavailable):
    """Another process dropped the collection."""


class QdrantVectors:
    """`domain.vectors.VectorStore`. The server indexes and compacts by itself, and filters inside its index.

    `local`: the client is its own database, which knows no indices.
    """

    def __init__(self, client: AsyncQdrantClient, space: Space, local: bool = False) -> None:
        self._client, self._space, self._local, self._ready = client, space, local, False

    async def upsert(self, tenant: str, records: Sequence[VectorRecord]) -> None:
        check(self._space, (record.vector for record in records))
        if not records:
            return
        points = list({record.id: _point(tenant, record) for record in records}.values())
        for start in range(0, len(points), BATCH):

            async def upsert(some: list[q.PointStruct] = points[start : start + BATCH]) -> None:
                await self._create()
                await self._client.upsert(self._space.name, some, wait=True)

            await self._call(upsert)

    async def delete(self, tenant: str, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), BATCH):
            some: list[int | str | uuid.UUID] = [_point_id(tenant, id) for id in ids[start : start + BATCH]]
            await self._delete(q.PointIdsList(points=some))

    async def delete_conversation(self, tenant: str, conversation: str) -> None:
        await self._delete(q.FilterSelector(filter=_filter(tenant, Where(conversation=conversation))))

    async def delete_tenant(self, tenant: str) -> None:
        await self._delete(q.FilterSelector(filter=_filter(tenant, None)))

    async def search(self, tenant: str, vector: Embedding, limit: int, where: Where | None = None) -> list[Found]:
        check_question(self._space, vector, limit)
        question, allowed = [float(value) for value in vector], _filter(tenant, where)

        async def ask(wanted: int) -> list[Found]:
            answer = await self._client.query_points(
                self._space.name,
                query=question,
                query_filter=allowed,
                limit=wanted,
                with_payload=["id", "conversation"],
            )
            return [found(p["id"], p["conversation"], point.score) for point in answer.points if (p := point.payload)]

        return await self._if_there(lambda: nearest(limit, ask)) or []

    async def fetch(self, tenant: str, ids: Sequence[str]) -> list[VectorRecord]:
        there: dict[str, VectorRecord] = {}
        for start in range(0, len(ids), BATCH):
            some = [_point_id(tenant, id) for id in ids[start : start + BATCH]]
            read = partial(self._client.retrieve, self._space.name, some, with_payload=True, with_vectors=True)
            points = await self._if_there(read)
            there |= {record.id: record for record in map(_record, points or [])}
        return [there[id] for id in ids if id in there]

    async def count(self, tenant: str) -> int:
        which = _filter(tenant, None)
        answer = await self._if_there(lambda: self._client.count(self._space.name, count_filter=which, exact=True))
        return 0 if answer is None else answer.count

    async def optimise(self, tenant: str) -> None:
        """Nothing: the server does it."""

    async def drop(self) -> None:
        await self._if_there(lambda: self._client.delete_collection(self._space.name))
        self._ready = False

    async def close(self) -> None:
        await self._client.close()

    async def _delete(self, which: q.PointsSelector) -> None:
        await self._if_there(lambda: self._client.delete(self._space.name, which, wait=True))

    async def _if_there(self, use: Callable[[], Awaitable[T]]) -> T | None:
        """None where there is no collection."""

        async def call() -> T | None:
            return await use() if self._ready or await self._exists() else None

        return await self._call(call)

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        for ready in (self._ready, False):
            try:
                return await self._translated(call)
            except Gone:
                self._ready = False
                if not ready:
                    raise
        raise AssertionError

    async def _translated(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await call()
        except (ResponseHandlingException, httpx.HTTPError, OSError) as error:
            raise Unavailable("The vector database cannot be reached.") from error
        except UnexpectedResponse as error:
            status = error.status_code or 500
            if status == 404:
                raise Gone from error
            if status in (408, 429) or status >= 500:
                raise Unavailable(f"The vector database answered with status {status}.") from error
            raise BrainError(f"The vector database refused a request with status {status}.") from error
        except ValueError as error:
            if self._local and "not found" in str(error):
                raise Gone from error
            raise

    async def _exists(self) -> bool:
        name = self._space.name
        if not await self._client.collection_exists(name):
            return False
        config = (await self._client.get_collection(name)).config
        vectors = config.params.vectors
        size = vectors.size if isinstance(vectors, q.VectorParams) else 0
        there = Space(name, str((config.metadata or {}).get(EMBEDDER, "another embedder")), size)
        if there != self._space:
            raise SpaceMismatch(str(self._space), str(there))
        self._ready = True
        return True

    async def _create(self) -> None:
        if self._ready or await self._exists():
            return
        try:
            await self._client.create_collection(
                self._space.name,
                vectors_config=q.VectorParams(size=self._space.dimensions, distance=q.Distance.COSINE),
                hnsw_config=q.HnswConfigDiff(payload_m=16, m=0),  # a graph a tenant, none over all
                metadata={EMBEDDER: self._space.embedder},
            )
        except (UnexpectedResponse, ValueError):
            if not await self._exists():  # else another process was faster
                raise
        if not self._local:
            await self._indices()
        self._ready = True

    async def _indices(self) -> None:
        kinds: dict[str, Any] = {"tenant": q.KeywordIndexParams(type=q.KeywordIndexType.KEYWORD, is_tenant=True)}
        kinds |= dict.fromkeys(KEYWORDS, q.PayloadSchemaType.KEYWORD) | {"at": q.PayloadSchemaType.FLOAT}
        for name, kind in kinds.items():
            await self._client.create_payload_index(self._space.name, name, field_schema=kind, wait=True)


def _point_id(tenant: str, id: str) -> str:
    return str(uuid.uuid5(POINTS, f"{len(tenant)}:{tenant}{id}"))


def _point(tenant: str, record: VectorRecord) -> q.PointStruct:
    payload: dict[str, Any] = {
        "tenant": tenant,
        "id": record.id,
        "conversation": record.conversation,
        "role": record.role,
        "at": record.at,
    }
    payload |= {name: value for name in ("user", "intent") if (value := getattr(record, name)) is not None}
    return q.PointStruct(
        id=_point_id(tenant, record.id), vector=[float(value) for value in record.vector], payload=payload
    )


def _record(point: q.Record) -> VectorRecord:
    kept = dict(point.payload or {})
    del kept["tenant"]
    vector: Any = point.vector
    return VectorRecord(vector=list(vector), **kept)


def _filter(tenant: str, where: Where | None) -> q.Filter:
    where = where or Where()
    equal = {"tenant": tenant} | {name: value for name in KEYWORDS if (value := getattr(where, name)) is not None}
    must: list[q.Condition] = [q.FieldCondition(key=k, match=q.MatchValue(value=v)) for k, v in equal.items()]
    if where.since is not None or where.until is not None:
        must.append(q.FieldCondition(key="at", range=q.Range(gte=where.since, lt=where.until)))
    never: list[q.Condition] = []
    if where.other_than is not None:
        never.append(q.FieldCondition(key="conversation", match=q.MatchValue(value=where.other_than)))
    return q.Filter(must=must, must_not=never or None)
