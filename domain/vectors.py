"""Messages as vectors: what is kept of each, and what storage of vectors owes the domain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from domain.embedding import Embedding
from domain.message import Role


@dataclass(frozen=True, slots=True)
class Space:
    """Vectors that may be compared with each other: one embedder's. `embedder`: its name and revision.

    `name`: of the tables that hold them, short and of letters, digits and underscores.
    """

    name: str
    embedder: str
    dimensions: int

    def __str__(self) -> str:
        return f"{self.embedder} ({self.dimensions} dimensions)"


@dataclass(frozen=True, slots=True)
class VectorRecord:
    """A message: `id` is its own, `vector` has unit length, `at` is when it was created, in Unix seconds."""

    id: str
    conversation: str
    vector: Embedding
    role: Role
    at: float
    user: str | None = None
    intent: str | None = None


@dataclass(frozen=True, slots=True)
class Where:
    """What a search may find: each condition that is given holds. `since` ≤ created < `until`, Unix seconds."""

    user: str | None = None
    conversation: str | None = None
    other_than: str | None = None  # a conversation
    role: Role | None = None
    intent: str | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A message near the question; `score`: cosine similarity, in [-1, 1]."""

    id: str
    conversation: str
    score: float


class VectorStore(Protocol):
    """The vectors of one space, by tenant: what one tenant stores is never found by another.

    Every method raises `Unavailable` where the backend cannot be reached, and may be repeated; `SpaceMismatch` where a
    vector has another length, or the backend holds another embedder's vectors under this name. What was written is
    found by the next search. A tenant that stored nothing has an empty index. Vectors come back as float32 keeps them.
    """

    async def upsert(self, tenant: str, records: Sequence[VectorRecord]) -> None:
        """Store; a record whose id is there already takes its place. All of them, or a repetition makes it all."""
        ...

    async def delete(self, tenant: str, ids: Sequence[str]) -> None:
        """Remove messages, as far as they are there."""
        ...

    async def delete_conversation(self, tenant: str, conversation: str) -> None: ...

    async def delete_tenant(self, tenant: str) -> None: ...

    async def search(self, tenant: str, vector: Embedding, limit: int, where: Where | None = None) -> list[Found]:
        """The nearest records that `where` allows, the nearest first; equally near ones in order of `id`.

        `limit`: 1 to 1,000. Scores are rounded to 6 decimals, and equal ones are equally near; to put these in order at
        the cut, up to 10,000 records are read. With an index, a record in some hundreds may be missed.
        """
        ...

    async def fetch(self, tenant: str, ids: Sequence[str]) -> list[VectorRecord]:
        """Those of them that are there, in the order of `ids`."""
        ...

    async def count(self, tenant: str) -> int: ...

    async def optimise(self, tenant: str) -> None:
        """Make searches fast again after many writes (compaction, an index above a size). Searches go on meanwhile."""
        ...

    async def drop(self) -> None:
        """Remove the whole space, all tenants'."""
        ...

    async def close(self) -> None: ...
