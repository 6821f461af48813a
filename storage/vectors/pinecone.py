"""Vectors in Pinecone, by its documented HTTP interface: one namespace a tenant and space of one index.

https://docs.pinecone.io/reference/api/2025-10/data-plane/ and, for what is visible when,
https://docs.pinecone.io/guides/index-data/check-data-freshness
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from aiohttp import ClientError, ClientSession, ClientTimeout
from yarl import URL

from domain.embedding import Embedding
from domain.errors import BrainError, SpaceMismatch, Unavailable
from domain.vectors import Found, Space, VectorRecord, Where
from storage.vectors.ranking import check, check_question, found, nearest

VERSION = "2025-10"
UPSERTED, DELETED, FETCHED = 100, 1_000, 50  # of one request; 100 vectors of 1,024 dimensions stay below its 2 MB
SECONDS = 20.0  # of one request
VISIBLE = 30.0  # seconds in which a write must be seen by searches
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)  # between two looks; the last one repeats
PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,256}")
LSN, INDEXED = "x-pinecone-request-lsn", "x-pinecone-max-indexed-lsn"
MESSAGE = 200  # characters of an answer that an error shows
CONDITIONS = ("user", "conversation", "role", "intent")
SPACE = "space"  # id of the record that names the embedder


class PineconeVectors:
    """`domain.vectors.VectorStore`. `url`: of the index, `key`: of the project; it stands in no error.

    A write returns when searches see it: the database is eventually consistent, and tells how far it is.
    """

    def __init__(self, url: str, key: str, space: Space) -> None:
        self._url, self._space = url.rstrip("/"), space
        self._headers = {"Api-Key": key, "X-Pinecone-Api-Version": VERSION, "Accept": "application/json"}
        self._session: ClientSession | None = None
        self._checked = False

    async def upsert(self, tenant: str, records: Sequence[VectorRecord]) -> None:
        check(self._space, (record.vector for record in records))
        last = list({record.id: _vector(record) for record in records}.values())
        if not last:
            return
        await self._check(create=True)
        namespace, seen = self._namespace(tenant), None
        for start in range(0, len(last), UPSERTED):
            body = {"vectors": last[start : start + UPSERTED], "namespace": namespace}
            seen = (await self._post("/vectors/upsert", body))[1].get(LSN)
        await self._until_visible(namespace, seen)

    async def delete(self, tenant: str, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), DELETED):
            await self._delete(tenant, {"ids": [_id(id) for id in ids[start : start + DELETED]]})

    async def delete_conversation(self, tenant: str, conversation: str) -> None:
        await self._delete(tenant, {"filter": {"conversation": {"$eq": conversation}}})

    async def delete_tenant(self, tenant: str) -> None:
        await self._delete(tenant, {"deleteAll": True})

    async def search(self, tenant: str, vector: Embedding, limit: int, where: Where | None = None) -> list[Found]:
        check_question(self._space, vector, limit)
        await self._check()
        body: dict[str, Any] = {"namespace": self._namespace(tenant), "vector": _values(vector)}
        body |= {"includeMetadata": True, "includeValues": False}
        if allowed := _filter(where):
            body["filter"] = allowed

        async def ask(wanted: int) -> list[Found]:
            answer, _ = await self._post("/query", body | {"topK": wanted})
            matches = [(match["metadata"], match["score"]) for match in answer.get("matches", ())]
            return [found(kept["id"], kept["conversation"], score) for kept, score in matches]

        return await nearest(limit, ask)

    async def fetch(self, tenant: str, ids: Sequence[str]) -> list[VectorRecord]:
        await self._check()
        there: dict[str, VectorRecord] = {}
        for start in range(0, len(ids), FETCHED):
            wanted = [_id(id) for id in ids[start : start + FETCHED]]
            for vector in (await self._fetch(self._namespace(tenant), wanted)).values():
                record = _record(vector)
                there[record.id] = record
        return [there[id] for id in ids if id in there]

    async def count(self, tenant: str) -> int:
        """As the database counts it, which may be behind what was written."""
        answer, _ = await self._request("GET", f"/namespaces/{self._namespace(tenant)}")
        return int(answer.get("record_count", 0))

    async def optimise(self, tenant: str) -> None:
        """Nothing: the database does it."""

    async def drop(self) -> None:
        names = [name async for name in self._namespaces()]
        for name in names:
            await self._request("DELETE", f"/namespaces/{name}")
        self._checked = False

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _namespace(self, tenant: str) -> str:
        return f"{self._space.name}-{hashlib.sha256(tenant.encode()).hexdigest()[:40]}"

    async def _namespaces(self) -> AsyncIterator[str]:
        query = {"prefix": f"{self._space.name}-", "limit": "100"}
        while True:
            answer, _ = await self._request("GET", "/namespaces", query=query)
            for one in answer.get("namespaces", ()):
                if one["name"].startswith(query["prefix"]):
                    yield one["name"]
            if not (token := (answer.get("pagination") or {}).get("next")):
                return
            query["paginationToken"] = token

    async def _check(self, create: bool = False) -> None:
        """That the index and the space are of this embedder."""
        if self._checked:
            return
        namespace = f"{self._space.name}-space"
        answer, _ = await self._post("/describe_index_stats", {})
        size, embedder = int(answer.get("dimension") or 0), self._space.embedder
        if size == self._space.dimensions:
            kept = (await self._fetch(namespace, [SPACE])).get(SPACE)
            if kept is None and not create:
                return
            if kept is None:
                axis = [1.0] + [0.0] * (size - 1)
                named = {"id": SPACE, "values": axis, "metadata": {"embedder": embedder}}
                _, headers = await self._post("/vectors/upsert", {"vectors": [named], "namespace": namespace})
                await self._until_visible(namespace, headers.get(LSN))
            else:
                embedder = str(kept["metadata"]["embedder"])
        there = Space(self._space.name, embedder, size)
        if there != self._space:
            raise SpaceMismatch(str(self._space), str(there))
        self._checked = True

    async def _delete(self, tenant: str, which: Mapping[str, Any]) -> None:
        namespace = self._namespace(tenant)
        _, headers = await self._post("/vectors/delete", {**which, "namespace": namespace})
        await self._until_visible(namespace, headers.get(LSN))

    async def _fetch(self, namespace: str, ids: Sequence[str]) -> dict[str, Any]:
        query = [("ids", id) for id in ids] + [("namespace", namespace)]
        answer, _ = await self._request("GET", "/vectors/fetch", query=query)
        return dict(answer.get("vectors") or {})

    async def _until_visible(self, namespace: str, lsn: str | None) -> None:
        """Until the log of writes is indexed up to `lsn`. Raises `Unavailable` if that takes too long."""
        if lsn is None:
            return
        body = {"namespace": namespace, "topK": 1, "vector": [1.0] + [0.0] * (self._space.dimensions - 1)}
        deadline, looks = asyncio.get_running_loop().time() + VISIBLE, 0
        while True:
            _, headers = await self._post("/query", body)
            indexed = headers.get(INDEXED)
            if indexed is None or int(indexed) >= int(lsn):
                return
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable("The vector database has not indexed a write yet.")
            await asyncio.sleep(PAUSES[min(looks, len(PAUSES) - 1)])
            looks += 1

    async def _post(self, path: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, str]]:
        return await self._request("POST", path, body=body)

    async def _request(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, query: Any = None
    ) -> tuple[dict[str, Any], Mapping[str, str]]:
        """The answer and its headers; an empty one where the namespace does not exist."""
        if self._session is None:
            self._session = ClientSession(timeout=ClientTimeout(total=SECONDS))
        url = URL(f"{self._url}{path}")
        try:
            async with self._session.request(
                method, url, json=body, params=query, headers=self._headers, allow_redirects=False
            ) as response:
                if response.status == 404:
                    return {}, {}
                if response.status == 429 or response.status >= 500:
                    raise Unavailable(f"The vector database answered with status {response.status}.")
                if response.status != 200:
                    words = quote((await response.text())[:MESSAGE], safe=" {}\":,'.()-_")
                    raise BrainError(f"The vector database refused a request with status {response.status}: {words}")
                return await response.json(), response.headers
        except (ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unavailable(f"The vector database cannot be reached ({type(error).__name__}).") from None


def _id(id: str) -> str:
    """Ids there are ASCII and at most 512 characters; a message's own, unless it has others than usual."""
    return id if PLAIN.fullmatch(id) else f"#{hashlib.sha256(id.encode()).hexdigest()}"


def _values(vector: Embedding) -> list[float]:
    return [float(value) for value in vector]


def _vector(record: VectorRecord) -> dict[str, Any]:
    kept = {name: getattr(record, name) for name in ("id", "conversation", "role", "at", "user", "intent")}
    metadata = {name: value for name, value in kept.items() if value is not None}
    return {"id": _id(record.id), "values": _values(record.vector), "metadata": metadata}


def _record(vector: Mapping[str, Any]) -> VectorRecord:
    return VectorRecord(vector=list(vector["values"]), **vector["metadata"])


def _filter(where: Where | None) -> dict[str, Any]:
    if where is None:
        return {}
    parts: list[dict[str, Any]] = [
        {name: {"$eq": value}} for name in CONDITIONS if (value := getattr(where, name)) is not None
    ]
    if where.other_than is not None:
        parts.append({"conversation": {"$ne": where.other_than}})
    if where.since is not None:
        parts.append({"at": {"$gte": where.since}})
    if where.until is not None:
        parts.append({"at": {"$lt": where.until}})
    return {"$and": parts} if parts else {}
