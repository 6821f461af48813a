"""A strict double of Pinecone's data plane, version 2025-10: https://docs.pinecone.io/reference/api/2025-10/data-plane/.

Limits: https://docs.pinecone.io/reference/api/database-limits/operation-limits; what is visible when:
https://docs.pinecone.io/guides/index-data/check-data-freshness. A request that the documentation does not allow is
answered with 400 and kept in `refused`.
"""

import json
import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import web

KEY = "pcsk_hunter2"
VERSION = "2025-10"
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": lambda value, wanted: value == wanted,
    "$ne": lambda value, wanted: value != wanted,
    "$gt": lambda value, wanted: value > wanted,
    "$gte": lambda value, wanted: value >= wanted,
    "$lt": lambda value, wanted: value < wanted,
    "$lte": lambda value, wanted: value <= wanted,
    "$in": lambda value, wanted: value in wanted,
    "$nin": lambda value, wanted: value not in wanted,
}
NUMERIC = ("$gt", "$gte", "$lt", "$lte")
Vector = dict[str, Any]


class Refused(Exception):
    """The documentation does not allow this."""


@dataclass
class Namespace:
    """What searches see, and the writes that they do not see yet: each with its number and the reads it still waits."""

    vectors: dict[str, Vector] = field(default_factory=dict)
    pending: deque[tuple[int, Callable[[dict[str, Vector]], None]]] = field(default_factory=deque)
    written: int = 0
    indexed: int = 0
    reads: int = 0


@dataclass
class PineconeDouble:
    """`lag`: reads of a namespace before a write is seen. `faults`: statuses that the next requests get."""

    dimension: int
    lag: int = 1
    url: str = ""
    namespaces: dict[str, Namespace] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    faults: deque[int] = field(default_factory=deque)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["PineconeDouble"]:
        app = web.Application(middlewares=[self._checked], client_max_size=8 * 2**20)
        app.router.add_post("/vectors/upsert", self._upsert)
        app.router.add_post("/vectors/delete", self._delete)
        app.router.add_post("/query", self._query)
        app.router.add_post("/describe_index_stats", self._stats)
        app.router.add_get("/vectors/fetch", self._fetch)
        app.router.add_get("/namespaces", self._list)
        app.router.add_get("/namespaces/{namespace}", self._describe)
        app.router.add_delete("/namespaces/{namespace}", self._drop)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"{host}:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    @web.middleware
    async def _checked(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.faults:
            return web.json_response({"code": 13, "message": "it broke", "details": []}, status=self.faults.popleft())
        if request.headers.get("Api-Key") != KEY:
            return web.Response(status=401, text="Unauthorized")
        try:
            if request.headers.get("X-Pinecone-Api-Version") != VERSION:
                raise Refused("X-Pinecone-Api-Version")
            if request.method == "POST" and request.content_type != "application/json":
                raise Refused(f"content type {request.content_type}")
            return await handler(request)
        except Refused as error:
            self.refused.append(f"{request.path}: {error}")
            return web.json_response({"code": 3, "message": str(error), "details": []}, status=400)

    async def _body(self, request: web.Request, known: set[str]) -> dict[str, Any]:
        raw = await request.read()
        try:
            body = json.loads(raw)
        except ValueError:
            raise Refused("not JSON") from None
        _need(isinstance(body, dict), "the body is no object")
        _need(set(body) <= known, f"unknown fields {set(body) - known}")
        _need(len(raw) <= 2 * 2**20 or request.path != "/vectors/upsert", "more than 2 MB")
        self.requests.append((request.path, body))
        return body

    async def _upsert(self, request: web.Request) -> web.Response:
        body = await self._body(request, {"vectors", "namespace"})
        vectors = body.get("vectors")
        _need(isinstance(vectors, list) and 1 <= len(vectors) <= 1000, "1 to 1,000 vectors")
        for vector in vectors:
            self._check_vector(vector)
        kept = {vector["id"]: _stored(vector) for vector in vectors}
        lsn = self._write(_namespace(body), lambda there: there.update(kept))
        return web.json_response({"upsertedCount": len(vectors)}, headers={"x-pinecone-request-lsn": str(lsn)})

    async def _delete(self, request: web.Request) -> web.Response:
        body = await self._body(request, {"ids", "deleteAll", "namespace", "filter"})
        _need(len(body.keys() & {"ids", "deleteAll", "filter"}) == 1, "one of ids, deleteAll and filter")
        if (name := _namespace(body)) not in self.namespaces:
            return web.json_response({"code": 5, "message": "Namespace not found", "details": []}, status=404)
        if "ids" in body:
            ids = body["ids"]
            _need(isinstance(ids, list) and 1 <= len(ids) <= 1000, "1 to 1,000 ids")
            for id in ids:
                _check_id(id)
            gone = lambda id, _: id in ids  # noqa: E731
        elif "filter" in body:
            allowed = _condition(body["filter"])
            gone = lambda _, vector: allowed(vector["metadata"])  # noqa: E731
        else:
            _need(body["deleteAll"] is True, "deleteAll is true or absent")
            gone = lambda *_: True  # noqa: E731

        def delete(there: dict[str, Vector]) -> None:
            for id in [id for id, vector in there.items() if gone(id, vector)]:
                del there[id]

        return web.json_response({}, headers={"x-pinecone-request-lsn": str(self._write(name, delete))})

    async def _query(self, request: web.Request) -> web.Response:
        known = {"namespace", "topK", "filter", "includeValues", "includeMetadata", "vector", "id"}
        body = await self._body(request, known)
        top = body.get("topK")
        _need(isinstance(top, int) and 1 <= top <= 10_000, "topK is 1 to 10,000")
        _need(("vector" in body) != ("id" in body), "either vector or id")
        _need("id" not in body, "by id: not played here")
        self._check_values(body["vector"])
        allowed = _condition(body["filter"]) if "filter" in body else lambda _: True
        if (space := self.namespaces.get(_namespace(body))) is None:
            return web.json_response({"matches": [], "namespace": body.get("namespace", "")})
        self._read(space)
        question = np.asarray(body["vector"], np.float32)
        scored = [
            (
                float(
                    np.dot(question, vector["values"]) / (np.linalg.norm(question) * np.linalg.norm(vector["values"]))
                ),
                vector,
            )
            for vector in reversed(space.vectors.values())  # of equally near ones, any order is allowed
            if allowed(vector["metadata"])
        ]
        scored.sort(key=lambda pair: -pair[0])
        matches = [self._match(score, vector, body) for score, vector in scored[:top]]
        answer = {"matches": matches, "namespace": body.get("namespace", ""), "usage": {"readUnits": 1}}
        return web.json_response(answer, headers={"x-pinecone-max-indexed-lsn": str(space.indexed)})

    async def _fetch(self, request: web.Request) -> web.Response:
        _need(set(request.query) <= {"ids", "namespace"}, f"unknown parameters {set(request.query)}")
        ids = request.query.getall("ids", [])
        _need(1 <= len(ids) <= 1000, "1 to 1,000 ids")
        _need(len(request.raw_path) < 8_000, "the URL is too long")
        for id in ids:
            _check_id(id)
        name = request.query.get("namespace", "")
        space = self.namespaces.get(name)
        there = {} if space is None else self._read(space)
        found = {id: {**there[id], "values": there[id]["values"].tolist()} for id in ids if id in there}
        return web.json_response({"vectors": found, "namespace": name, "usage": {"readUnits": 1}})

    async def _stats(self, request: web.Request) -> web.Response:
        await self._body(request, set())  # serverless indexes do not filter statistics
        counts = {name: {"vectorCount": len(space.vectors)} for name, space in self.namespaces.items()}
        total = sum(one["vectorCount"] for one in counts.values())
        return web.json_response(
            {"namespaces": counts, "dimension": self.dimension, "totalVectorCount": total, "metric": "cosine"}
        )

    async def _list(self, request: web.Request) -> web.Response:
        _need(set(request.query) <= {"limit", "paginationToken", "prefix"}, "unknown parameters")
        limit, after = int(request.query.get("limit", 100)), request.query.get("paginationToken", "")
        _need(1 <= limit <= 100, "limit is 1 to 100")
        names = sorted(n for n in self.namespaces if n.startswith(request.query.get("prefix", "")) and n > after)
        page = names[: min(limit, 2)]  # small pages, so that a client that reads only the first is found out
        answer: dict[str, Any] = {
            "namespaces": [{"name": name, "record_count": len(self.namespaces[name].vectors)} for name in page]
        }
        if len(names) > len(page):
            answer["pagination"] = {"next": page[-1]}
        return web.json_response(answer)

    async def _describe(self, request: web.Request) -> web.Response:
        if (space := self.namespaces.get(name := request.match_info["namespace"])) is None:
            return web.json_response({"code": 5, "message": "Namespace not found", "details": []}, status=404)
        return web.json_response({"name": name, "record_count": len(space.vectors)})

    async def _drop(self, request: web.Request) -> web.Response:
        if self.namespaces.pop(request.match_info["namespace"], None) is None:
            return web.json_response({"code": 5, "message": "Namespace not found", "details": []}, status=404)
        return web.json_response({})

    def _match(self, score: float, vector: Vector, body: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {"id": vector["id"], "score": score, "values": []}
        if body.get("includeValues", False):
            found["values"] = vector["values"].tolist()
        if body.get("includeMetadata", False):
            found["metadata"] = vector["metadata"]
        return found

    def _write(self, name: str, change: Callable[[dict[str, Vector]], None]) -> int:
        space = self.namespaces.setdefault(name, Namespace())
        space.written += 1
        space.pending.append((space.reads + self.lag, change))
        return space.written

    def _read(self, space: Namespace) -> dict[str, Vector]:
        while space.pending and space.pending[0][0] <= space.reads:
            space.pending.popleft()[1](space.vectors)
            space.indexed += 1
        space.reads += 1
        return space.vectors

    def _check_vector(self, vector: Any) -> None:
        _need(isinstance(vector, dict), "a vector is an object")
        _need(set(vector) <= {"id", "values", "metadata"}, f"unknown fields {set(vector)}")
        _check_id(vector.get("id"))
        self._check_values(vector.get("values"))
        metadata = vector.get("metadata", {})
        _need(isinstance(metadata, dict), "metadata is an object")
        _need(len(json.dumps(metadata)) <= 40 * 1024, "metadata is at most 40 KB")
        for name, value in metadata.items():
            _need(not name.startswith("$"), f"metadata's key {name}")
            texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
            _need(texts or isinstance(value, (str, bool, int, float)), f"metadata's {name} is {type(value).__name__}")

    def _check_values(self, values: Any) -> None:
        _need(isinstance(values, list) and all(isinstance(v, (int, float)) for v in values), "values are numbers")
        _need(len(values) == self.dimension, f"dimension {len(values)}, and the index has {self.dimension}")
        _need(any(values), "at least one value is not zero")


def _stored(vector: Vector) -> Vector:
    return {
        "id": vector["id"],
        "values": np.asarray(vector["values"], np.float32),
        "metadata": vector.get("metadata", {}),
    }


def _namespace(body: dict[str, Any]) -> str:
    name = body.get("namespace", "")
    _need(isinstance(name, str) and re.fullmatch(r"[\x20-\x7e]{0,512}", name), "a namespace is ASCII")
    return name


def _check_id(id: Any) -> None:
    _need(isinstance(id, str) and re.fullmatch(r"[\x20-\x7e]{1,512}", id), "an id is 1 to 512 ASCII characters")


def _condition(filter: Any) -> Callable[[dict[str, Any]], bool]:
    _need(isinstance(filter, dict) and filter, "a filter is an object with conditions")
    parts: list[Callable[[dict[str, Any]], bool]] = []
    for name, wanted in filter.items():
        if name in ("$and", "$or"):
            _need(isinstance(wanted, list) and wanted, f"{name} takes a list")
            inner = [_condition(one) for one in wanted]
            every = all if name == "$and" else any
            parts.append(lambda kept, inner=inner, every=every: every(one(kept) for one in inner))
            continue
        _need(not name.startswith("$") and isinstance(wanted, dict) and wanted, f"a condition of {name}")
        for operator, value in wanted.items():
            _need(operator in OPERATORS, f"operator {operator}")
            if operator in NUMERIC:
                _need(isinstance(value, (int, float)), f"{operator} takes a number")
            test = OPERATORS[operator]
            parts.append(lambda kept, name=name, value=value, test=test: name in kept and test(kept[name], value))
    return lambda kept: all(part(kept) for part in parts)


def _need(condition: Any, what: str) -> None:
    if not condition:
        raise Refused(what)
