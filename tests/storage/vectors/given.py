"""Backends and records that the tests of vectors share."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from qdrant_client import AsyncQdrantClient

from domain.vectors import Space, VectorRecord, VectorStore
from storage.vectors.lance import LanceVectors
from storage.vectors.lance_upkeep import Upkeep
from storage.vectors.pinecone import PineconeVectors
from storage.vectors.qdrant import QdrantVectors
from tests.doubles.pinecone_double import KEY, PineconeDouble

SPACE = Space("small", "small-embedder@1", 8)
BACKENDS = ("lancedb", "lancedb-indexed-columns", "qdrant", "pinecone")


@dataclass(frozen=True)
class Backend:
    """`open(space)`: another store over the same data."""

    name: str
    open: Callable[[Space], VectorStore]


@asynccontextmanager
async def running(name: str, folder: Path) -> AsyncIterator[Backend]:
    opened: list[VectorStore] = []

    def remembered(open: Callable[[Space], VectorStore]) -> Backend:
        def opening(space: Space) -> VectorStore:
            opened.append(open(space))
            return opened[-1]

        return Backend(name, opening)

    async with _serving(name, folder) as open:
        yield remembered(open)
        for store in opened:
            await store.close()


@asynccontextmanager
async def _serving(name: str, folder: Path) -> AsyncIterator[Callable[[Space], VectorStore]]:
    if name.startswith("lancedb"):
        upkeep = Upkeep(scalars_from=1 if name != "lancedb" else 10_000, kept=0.001)
        yield lambda space: LanceVectors(folder, space, upkeep)
    elif name == "qdrant":
        client = AsyncQdrantClient(path=str(folder))
        yield lambda space: QdrantVectors(client, space, local=True)
    else:
        async with PineconeDouble(SPACE.dimensions).serving() as double:
            yield lambda space: PineconeVectors(f"http://{double.url}", KEY, space)
            assert double.refused == []


def unit(*values: float) -> list[float]:
    """Of the length of SPACE; float32, so that it comes back as it is."""
    vector = np.zeros(SPACE.dimensions)
    vector[: len(values)] = values
    return (vector / np.linalg.norm(vector)).astype(np.float32).tolist()


def record(id: str, *values: float, conversation: str = "conv_1", **changes) -> VectorRecord:
    fields = {"role": "user", "at": 1_000.0} | changes
    return VectorRecord(id, conversation, unit(*(values or (1,))), **fields)


def same(one: VectorRecord, other: VectorRecord) -> bool:
    """But for rounding of the vector."""
    near = np.allclose(one.vector, other.vector, atol=1e-6)
    names = ("id", "conversation", "role", "at", "user", "intent")
    return near and all(getattr(one, name) == getattr(other, name) for name in names)
